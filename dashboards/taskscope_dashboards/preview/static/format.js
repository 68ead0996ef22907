/** Numbers as people read them, by Grafana's unit ids; colours by Grafana's names. */

const COLOURS = {
  green: '#73bf69', 'dark-green': '#37872d', 'semi-dark-green': '#56a64b', 'light-green': '#96d98d',
  yellow: '#fade2a', 'dark-yellow': '#e0b400', 'light-yellow': '#ffee52', orange: '#ff9830',
  'dark-orange': '#fa6400', 'light-orange': '#ffb357',
  red: '#f2495c', 'dark-red': '#c4162a', blue: '#5794f2', purple: '#b877d9', text: '#d8d9da',
};
const PALETTE = [
  '#7eb26d', '#eab839', '#6ed0e0', '#ef843c', '#b877d9', '#5794f2', '#ba43a9', '#8f7ec0', '#96d98d', '#cca300',
  '#44a8b3', '#c15c17', '#e24d42', '#8ab8ff', '#ffa6b0', '#56a64b', '#e0b400', '#ff9830', '#fade2a', '#ca95e5',
];

export const colour = (name) => COLOURS[name] ?? name;
export const palette = (index) => PALETTE[index % PALETTE.length];

/** The colour of the highest threshold that the value reaches. */
export function thresholdColour(value, steps) {
  let name = steps[0]?.color ?? 'green';
  for (const step of steps) if (step.value !== null && step.value !== undefined && value >= step.value) name = step.color;
  return colour(name);
}

function digits(value, fixed) {
  if (fixed !== undefined && fixed !== null) return value.toFixed(fixed);
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 0.0005) return value.toExponential(1);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

function scaled(value, fixed, base, names) {
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= base && step < names.length - 1) { rest /= base; step += 1; }
  return `${digits(rest, fixed)}${names[step] ? ` ${names[step]}` : ''}`;
}

function seconds(value, fixed) {
  const size = Math.abs(value);
  if (value === 0) return '0 s';
  if (size < 1e-3) return `${digits(value * 1e6, fixed)} µs`;
  if (size < 1) return `${digits(value * 1e3, fixed)} ms`;
  if (size < 60) return `${digits(value, fixed)} s`;
  if (size < 3600) return `${digits(value / 60, fixed)} min`;
  if (size < 86400) return `${digits(value / 3600, fixed)} h`;
  return `${digits(value / 86400, fixed)} d`;
}

function ago(milliseconds) {
  const age = (Date.now() - milliseconds) / 1000;
  return Math.abs(age) < 30 ? 'just now' : age < 0 ? `in ${seconds(-age)}` : `${seconds(age, age < 60 ? 0 : 1)} ago`;
}

/** A value in Grafana's unit. decimals: fixed digits after the point, or undefined for three significant. */
export function format(value, unit, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '-∞';
  if (unit === 'none') return digits(value, decimals);
  if (unit === 's') return seconds(value, decimals);
  if (unit === 'bytes') return scaled(value, decimals, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
  if (unit === 'Bps') return `${scaled(value, decimals, 1000, ['B', 'kB', 'MB', 'GB'])}/s`;
  if (unit === 'percentunit') return `${digits(value * 100, decimals)} %`;
  if (unit === 'reqps') return `${scaled(value, decimals, 1000, ['', 'k', 'M'])} req/s`;
  if (unit === 'dateTimeFromNow') return ago(value);
  if (unit === 'bool_yes_no') return value ? 'yes' : 'no';
  if (unit?.startsWith('suffix:')) return `${digits(value, decimals)}${unit.slice('suffix:'.length)}`;
  return scaled(value, decimals, 1000, ['', 'k', 'M', 'G']);
}

/** Time of day, or day and time where the range is longer than a day. milliseconds since 1970. */
export function clock(milliseconds, { date = false, second = false } = {}) {
  const options = { hour: '2-digit', minute: '2-digit', hour12: false };
  if (second) options.second = '2-digit';
  if (date) Object.assign(options, { month: '2-digit', day: '2-digit' });
  return new Date(milliseconds).toLocaleString('en-GB', options);
}

/** Round bounds of an axis and its ticks. binary: steps are powers of two, so that KiB and MiB are round. */
export function ticks(low, high, count, binary) {
  const rough = (high - low || Math.abs(high) || 1) / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = binary && rough > 1
    ? 2 ** Math.ceil(Math.log2(rough))
    : [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((size) => size >= rough * 0.999);
  const first = Math.floor(low / step + 1e-9) * step;
  const out = [];
  for (let at = first; at < high + step * 0.999; at += step) out.push(Number(at.toPrecision(12)));
  return out;
}
