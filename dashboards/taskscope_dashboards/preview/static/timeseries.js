/** Lines and stacked areas over time, with thresholds, events, exemplars, a legend and a crosshair. */

import { html, message, svg, swatch } from './dom.js';
import { clock, colour, format, palette, ticks } from './format.js';

const AXIS = 20;
const LEGEND_LINE = 17;

function colourOf(panel, name, index) {
  for (const override of panel.fieldConfig.overrides) {
    if (override.matcher.options !== name) continue;
    const found = override.properties.find((property) => property.id === 'color');
    if (found) return colour(found.value.fixedColor);
  }
  return palette(index);
}

/** Each series with its colour, and where it is drawn: on its own value, or on top of those before it. */
function prepared(panel, series) {
  const stacked = panel.fieldConfig.defaults.custom.stacking?.mode === 'normal';
  const height = new Map();
  return series.map((one, index) => {
    const drawn = one.points.filter(([, value]) => Number.isFinite(value)).map(([at, value]) => {
      const below = stacked ? height.get(at) ?? 0 : 0;
      if (stacked) height.set(at, below + value);
      return { at, value, below, top: below + value };
    });
    return { ...one, drawn, stacked, colour: colourOf(panel, one.name, index) };
  });
}

function scales(panel, series, view, width, height) {
  const { unit, decimals, min, max, thresholds } = panel.fieldConfig.defaults;
  const tops = series.flatMap((one) => one.drawn.map((point) => point.top));
  const bounds = thresholds.steps.map((step) => step.value).filter((value) => value !== null && value !== undefined);
  const highest = Math.max(...tops, 0);
  // A threshold far above the data would flatten it: it is drawn where it is near, and told in the legend anyway.
  const near = highest ? bounds.filter((bound) => bound <= highest * 4) : bounds.slice(0, 1).map((bound) => bound * 2);
  const high = max ?? Math.max(highest, ...near) * 1.05;
  const marks = ticks(min ?? Math.min(0, ...tops), high || 1, Math.max(2, Math.floor(height / 42)), unit === 'bytes');
  const top = max ?? marks.at(-1);
  const left = 12 + Math.max(...marks.map((mark) => format(mark, unit, decimals).length)) * 6.4;
  const startMs = view.startS * 1000;
  const endMs = view.endS * 1000;
  return {
    left, marks: marks.filter((mark) => mark <= top), bounds,
    x: (at) => left + ((at - startMs) / (endMs - startMs)) * (width - left - 4),
    y: (value) => height - AXIS - ((value - marks[0]) / (top - marks[0] || 1)) * (height - AXIS - 6),
    at: (x) => startMs + ((x - left) / (width - left - 4)) * (endMs - startMs),
  };
}

function axes(panel, view, scale, width, height) {
  const { unit, decimals } = panel.fieldConfig.defaults;
  const out = [];
  for (const mark of scale.marks) {
    const y = scale.y(mark);
    out.push(svg('line', { x1: scale.left, x2: width, y1: y, y2: y, stroke: '#2c3037' }));
    out.push(svg('text', { x: scale.left - 6, y: y + 4, 'text-anchor': 'end' }, format(mark, unit, decimals)));
  }
  const span = (view.endS - view.startS) * 1000;
  const count = Math.max(2, Math.floor((width - scale.left) / 90));
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((m) => m * 60000).find((s) => span / s <= count) ?? span;
  const offset = new Date(view.endS * 1000).getTimezoneOffset() * 60000;
  for (let at = Math.ceil((view.startS * 1000 - offset) / step) * step + offset; at <= view.endS * 1000; at += step) {
    const x = scale.x(at);
    if (x < scale.left + 14 || x > width - 16) continue;
    out.push(svg('text', { x, y: height - 5, 'text-anchor': 'middle' }, clock(at, { date: span > 86400000 })));
  }
  return out;
}

/** Points parted where samples lack for longer than two steps. */
function runs(points, gapMs) {
  const out = [];
  for (const point of points) {
    const last = out.at(-1)?.at(-1);
    if (!last || point.at - last.at > gapMs) out.push([]);
    out.at(-1).push(point);
  }
  return out;
}

const path = (points, scale, key) => points.map((p, i) => `${i ? 'L' : 'M'}${scale.x(p.at).toFixed(1)},${scale.y(p[key]).toFixed(1)}`).join('');

function shape(one, scale, gapMs) {
  return runs(one.drawn, gapMs).flatMap((points) => {
    const line = path(points, scale, 'top');
    const base = path([...points].reverse(), scale, 'below').replace('M', 'L');
    return [
      svg('path', { d: `${line}${base}Z`, fill: one.colour, 'fill-opacity': one.stacked ? 0.55 : 0.08 }),
      svg('path', { d: line, fill: 'none', stroke: one.colour, 'stroke-width': 1.5, 'stroke-linejoin': 'round' }),
    ];
  });
}

function marks(extras, panel, scale, width, height) {
  const out = [];
  for (const event of extras.events) {
    const x = scale.x(event.at);
    out.push(svg('line', { x1: x, x2: x, y1: 4, y2: height - AXIS, stroke: colour(event.colour), 'stroke-dasharray': '3 3', 'stroke-opacity': 0.8 },
      svg('title', {}, event.title)));
  }
  for (const step of panel.fieldConfig.defaults.thresholds.steps) {
    if (step.value === null || step.value === undefined) continue;
    const y = scale.y(step.value);
    if (y < 2 || panel.fieldConfig.defaults.custom.thresholdsStyle?.mode === 'off') continue;
    out.push(svg('line', { x1: scale.left, x2: width, y1: y, y2: y, stroke: colour(step.color), 'stroke-dasharray': '6 4' }));
  }
  for (const one of extras.exemplars) {
    const x = scale.x(one.at);
    const y = scale.y(one.value);
    if (y < 0 || x < scale.left) continue;
    out.push(svg('a', { href: `${extras.requests}?var-search=${encodeURIComponent(`trace.id:"${one.trace}"`)}` },
      svg('path', { d: `M${x},${y - 4}l4,4l-4,4l-4,-4Z`, fill: '#b877d9', 'fill-opacity': 0.8 }, svg('title', {}, `trace ${one.trace}`))));
  }
  return out;
}

function legend(panel, series, bounds) {
  const { unit, decimals } = panel.fieldConfig.defaults;
  const head = html('tr', {}, html('th', {}, bounds.length ? `red line at ${bounds.map((b) => format(b, unit)).join(', ')}` : ''),
    html('th', {}, 'Last'), html('th', {}, 'Max'));
  const rows = series.map((one) => {
    const values = one.drawn.map((point) => point.value);
    return html('tr', {}, html('td', { title: one.name }, swatch(one.colour), one.name),
      html('td', {}, format(values.at(-1), unit, decimals)), html('td', {}, format(values.length ? Math.max(...values) : NaN, unit, decimals)));
  });
  return html('div', { class: 'legend' }, html('table', {}, head, rows));
}

function crosshair(plot, panel, series, scale, height) {
  const { unit, decimals } = panel.fieldConfig.defaults;
  const line = svg('line', { y1: 4, y2: height - AXIS, stroke: '#9fa4ad', 'stroke-dasharray': '2 2', visibility: 'hidden' });
  const box = html('div', { class: 'tooltip', hidden: '' });
  plot.append(line);
  plot.addEventListener('mousemove', (event) => {
    const wanted = scale.at(event.clientX - plot.getBoundingClientRect().left);
    const near = series.map((one) => [one, one.drawn.reduce((best, p) => (!best || Math.abs(p.at - wanted) < Math.abs(best.at - wanted) ? p : best), null)])
      .filter(([, point]) => point).sort((a, b) => b[1].value - a[1].value).slice(0, 20);
    if (!near.length || wanted < scale.at(scale.left)) return;
    const { at } = near[0][1];
    line.setAttribute('x1', scale.x(at));
    line.setAttribute('x2', scale.x(at));
    line.setAttribute('visibility', 'visible');
    box.replaceChildren(html('b', {}, clock(at, { second: true, date: true })),
      ...near.map(([one, point]) => html('div', {}, swatch(one.colour), `${one.name}: ${format(point.value, unit, decimals)}`)));
    box.hidden = false;
    const room = window.innerWidth - event.clientX;
    box.style.left = room > 280 ? `${event.clientX + 14}px` : '';
    box.style.right = room > 280 ? '' : `${room + 14}px`;
    box.style.top = `${Math.min(event.clientY + 14, window.innerHeight - box.offsetHeight - 8)}px`;
  });
  plot.addEventListener('mouseleave', () => { line.setAttribute('visibility', 'hidden'); box.hidden = true; });
  return box;
}

/** Draws the panel into `body`. extras: {events, exemplars, requests: address of the requests board}. */
export function drawTimeseries(body, panel, found, view, extras) {
  const series = prepared(panel, found);
  if (!series.some((one) => one.drawn.length)) {
    body.replaceChildren(message('No data', { 'data-nodata': '' }));
    return;
  }
  const { clientWidth, clientHeight } = body;
  const width = clientWidth - 20;
  const listed = Math.min((series.length + 1) * LEGEND_LINE, Math.max(3 * LEGEND_LINE, clientHeight * 0.36));
  const height = Math.max(60, clientHeight - listed - 14);
  const scale = scales(panel, series, view, width, height);
  const plot = svg('svg', { width, height, role: 'img', 'aria-label': panel.title },
    axes(panel, view, scale, width, height), series.flatMap((one) => shape(one, scale, 2.5 * Math.max(view.stepS, 15) * 1000)),
    marks(extras, panel, scale, width, height));
  body.replaceChildren(plot, legend(panel, series, scale.bounds), crosshair(plot, panel, series, scale, height));
}
