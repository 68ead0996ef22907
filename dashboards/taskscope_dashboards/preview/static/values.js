/** Panels of single values: big numbers, tables, and the heatmap of buckets over time. */

import { html, link, message, svg } from './dom.js';
import { clock, format, thresholdColour } from './format.js';

const last = (points) => points.findLast(([, value]) => !Number.isNaN(value))?.[1];
const noData = () => message('No data', { 'data-nodata': '' });

function spark(points, width, height, stroke) {
  const known = points.filter(([, value]) => Number.isFinite(value));
  if (known.length < 2) return null;
  const values = known.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, final] = [known[0][0], known.at(-1)[0]];
  const y = (value) => height - 3 - ((value - low) / (high - low || 1)) * (height - 8);
  const line = known.map(([at, value], i) => `${i ? 'L' : 'M'}${((at - first) / (final - first)) * width},${y(value)}`).join('');
  return svg('svg', { width, height }, svg('path', { d: `${line}L${width},${height}L0,${height}Z`, fill: stroke, 'fill-opacity': 0.4 }),
    svg('path', { d: line, fill: 'none', stroke, 'stroke-width': 1.5 }));
}

/** Big numbers, one per series, coloured by the thresholds. */
export function drawStat(body, panel, series) {
  const known = series.map((one) => ({ ...one, value: last(one.points) })).filter((one) => one.value !== undefined);
  if (!known.length) { body.replaceChildren(noData()); return; }
  const { unit, decimals, thresholds } = panel.fieldConfig.defaults;
  const { clientWidth, clientHeight } = body;
  const wide = clientWidth > 1.6 * clientHeight && known.length <= 3;
  const width = (clientWidth - 20) / (wide ? known.length : 1);
  const height = (clientHeight - 10) / (wide ? 1 : known.length);
  const boxes = known.map((one) => {
    const text = format(one.value, unit, decimals);
    const size = Math.max(14, Math.min(height * 0.42, (width * 0.9) / (text.length * 0.66), 52));
    const stroke = thresholdColour(one.value, thresholds.steps);
    const value = html('span', { class: 'value' }, text);
    value.style.fontSize = `${size}px`;
    value.style.color = stroke;
    const area = panel.options.graphMode === 'area' ? spark(one.points, width, height * 0.38, stroke) : null;
    return html('div', { class: 'stat' }, html('span', { class: 'name', title: one.name }, one.name), value, area);
  });
  body.replaceChildren(html('div', { class: wide ? 'stats wide' : 'stats' }, boxes));
}

/** One row per set of labels, one column per query: what Grafana's merge and organize make of the same answers. */
function tableRows(panel, series) {
  const organize = panel.transformations.find((step) => step.id === 'organize').options;
  const many = panel.targets.length > 1;
  const rows = new Map();
  for (const one of series) {
    const labels = Object.entries(one.labels).filter(([name]) => name in organize.renameByName).sort();
    const key = JSON.stringify(labels);
    const row = rows.get(key) ?? Object.fromEntries(labels);
    row[many ? `Value #${one.refId}` : 'Value'] = last(one.points);
    rows.set(key, row);
  }
  const columns = Object.entries(organize.indexByName).sort((a, b) => a[1] - b[1]).map(([name]) => name);
  return { columns, rows: [...rows.values()], titles: organize.renameByName };
}

function cellLink(overrides, value, view) {
  const links = overrides.find((property) => property.id === 'links')?.value ?? [];
  if (!links.length || !value || value === 'none') return value ?? '';
  const address = links[0].url
    .replaceAll('${__value.text:percentencode}', encodeURIComponent(value))
    .replaceAll('${__from}', view.from).replaceAll('${__to}', view.to);
  return link(address, value);
}

export function drawTable(body, panel, series, view) {
  const { columns, rows, titles } = tableRows(panel, series);
  if (!rows.length) { body.replaceChildren(noData()); return; }
  const { defaults, overrides } = panel.fieldConfig;
  const properties = (title) => overrides.filter((one) => one.matcher.options === title).flatMap((one) => one.properties);
  const [sort] = panel.options.sortBy;
  const by = columns.find((name) => titles[name] === sort.displayName);
  rows.sort((a, b) => ((a[by] ?? -Infinity) - (b[by] ?? -Infinity)) * (sort.desc ? -1 : 1));
  const isNumber = (name) => name.startsWith('Value');
  const used = columns.filter((name) => isNumber(name) || rows.some((row) => row[name]));
  const cell = (row, name) => {
    const own = properties(titles[name]);
    if (!isNumber(name)) return html('td', {}, cellLink(own, row[name], view));
    const unit = own.find((property) => property.id === 'unit')?.value ?? defaults.unit;
    const td = html('td', { class: 'number' }, format(row[name], unit, defaults.decimals));
    if (own.some((property) => property.id === 'custom.cellOptions')) td.style.color = thresholdColour(row[name], defaults.thresholds.steps);
    return td;
  };
  const head = html('tr', {}, used.map((name) => html('th', isNumber(name) ? { class: 'number' } : {}, titles[name])));
  body.replaceChildren(html('div', { class: 'scroll' },
    html('table', { class: 'data' }, head, rows.map((row) => html('tr', {}, used.map((name) => cell(row, name)))))));
}

/** Cells of how many observations fell between two bounds in each step. */
export function drawHeatmap(body, panel, series, view) {
  const bound = (one) => (one.labels.le === '+Inf' ? Infinity : Number(one.labels.le));
  const buckets = [...series].sort((a, b) => bound(a) - bound(b));
  const cells = buckets.flatMap((one, index) => {
    const below = new Map(index ? buckets[index - 1].points : []);
    return one.points.map(([at, value]) => ({ index, at, value: Math.max(0, value - (below.get(at) ?? 0)) }));
  }).filter((cell) => cell.value > 1e-9);
  if (!cells.length) { body.replaceChildren(noData()); return; }
  const lowest = Math.max(0, Math.min(...cells.map((cell) => cell.index)) - 1);
  const highest = Math.min(buckets.length - 1, Math.max(...cells.map((cell) => cell.index)) + 1);
  const shown = highest - lowest + 1;
  const width = body.clientWidth - 20;
  const height = body.clientHeight - 10;
  const left = 62;
  const row = (height - 28) / shown;
  const startMs = view.startS * 1000;
  const perMs = (width - left - 4) / ((view.endS - view.startS) * 1000);
  const column = Math.max(1, view.stepS * 1000 * perMs - 0.5);
  const most = Math.max(...cells.map((cell) => cell.value));
  const unit = panel.options.yAxis.unit;
  const y = (index) => height - 20 - (index - lowest + 1) * row;
  const labels = buckets.slice(lowest, highest + 1).map((one, i) => (i % Math.ceil(14 / row) ? null
    : svg('text', { x: left - 6, y: y(lowest + i) + 4, 'text-anchor': 'end' }, bound(one) === Infinity ? '∞' : format(bound(one), unit))));
  const times = [0, 0.25, 0.5, 0.75, 1].map((share) => svg('text', {
    x: left + share * (width - left - 4), y: height - 5, 'text-anchor': share === 1 ? 'end' : share ? 'middle' : 'start',
  }, clock(startMs + share * (view.endS - view.startS) * 1000, { date: view.endS - view.startS > 86400 })));
  const squares = cells.filter((cell) => cell.at > startMs).map((cell) => svg('rect', {
    x: left + (cell.at - startMs) * perMs - column, y: y(cell.index) + 0.5, width: column, height: Math.max(1, row - 1),
    fill: '#ff9830', 'fill-opacity': (0.06 + 0.94 * Math.sqrt(cell.value / most)).toFixed(3),
  }, svg('title', {}, `${clock(cell.at, { second: true })} · up to ${format(bound(buckets[cell.index]), unit)}: ${format(cell.value, 'short')}`)));
  body.replaceChildren(svg('svg', { width, height, role: 'img', 'aria-label': panel.title }, labels, times, squares));
}
