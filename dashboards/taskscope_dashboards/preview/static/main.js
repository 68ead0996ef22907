/** The page: which board, which choices, which time; asks for every panel and draws it, again each 10 seconds. */

import { html, message } from './dom.js';
import { clock } from './format.js';
import { board, boards, eventsOf, exemplarsOf, linesOf, SCRAPE_S, seriesOf, valuesOf } from './query.js';
import { drawTimeseries } from './timeseries.js';
import { drawHeatmap, drawStat, drawTable } from './values.js';
import { drawLines } from './lines.js';

const REFRESH_MS = 10_000;
const POINTS = 240;
const RANGES = { '5m': 300, '15m': 900, '30m': 1800, '1h': 3600, '3h': 10800, '12h': 43200, '24h': 86400, '7d': 604800 };

const address = new URL(window.location.href);
const state = { uid: address.pathname.split('/')[2], chosen: {}, search: '*', rangeS: 3600, fixed: null, bodies: new Map() };

function readAddress(dashboard) {
  const now = /^now-(\w+)$/.exec(address.searchParams.get('from') ?? '');
  if (now && RANGES[now[1]]) state.rangeS = RANGES[now[1]];
  const [from, to] = ['from', 'to'].map((name) => Number(address.searchParams.get(name)));
  if (from > 0 && to > from) state.fixed = { from, to };
  for (const variable of dashboard.templating.list) {
    const values = address.searchParams.getAll(`var-${variable.name}`).filter((value) => value && value !== '$__all');
    if (variable.type === 'query') state.chosen[variable.name] = values;
    if (variable.type === 'textbox') state.search = values[0] ?? variable.query;
  }
}

/** The time that is shown: {startS, endS, stepS, rangeS, from, to, chosen, search}. */
function currentView() {
  const endS = state.fixed ? Math.floor(state.fixed.to / 1000) : Math.floor(Date.now() / 1000);
  const rangeS = state.fixed ? Math.ceil((state.fixed.to - state.fixed.from) / 1000) : state.rangeS;
  const stepS = Math.max(SCRAPE_S, Math.ceil(rangeS / POINTS / 5) * 5);
  const [from, to] = state.fixed ? [state.fixed.from, state.fixed.to] : [`now-${Object.keys(RANGES).find((k) => RANGES[k] === rangeS)}`, 'now'];
  return { startS: endS - rangeS, endS, stepS, rangeS, from, to, chosen: state.chosen, search: state.search };
}

function remember(name, values) {
  address.searchParams.delete(name);
  for (const value of values) address.searchParams.append(name, value);
  window.history.replaceState(null, '', address);
}

function rangePicker() {
  const select = document.getElementById('range');
  if (state.fixed) select.append(html('option', { value: '' }, `${clock(state.fixed.from, { date: true })} – ${clock(state.fixed.to, { date: true })}`));
  for (const [name, seconds] of Object.entries(RANGES)) {
    select.append(html('option', { value: name, selected: !state.fixed && seconds === state.rangeS ? '' : null }, name));
  }
  select.addEventListener('change', () => {
    state.fixed = null;
    state.rangeS = RANGES[select.value] ?? 3600;
    remember('from', [`now-${select.value}`]);
    remember('to', ['now']);
    draw();
  });
}

async function variablePickers(dashboard) {
  const place = document.getElementById('variables');
  for (const variable of dashboard.templating.list) {
    if (variable.type === 'textbox') place.append(searchField(variable));
    if (variable.type === 'query') place.append(await valuePicker(variable));
  }
}

function searchField(variable) {
  const input = html('input', { id: `var-${variable.name}`, value: state.search, size: 16, spellcheck: 'false', title: 'A trace id keeps the lines of that trace; * keeps all.' });
  input.addEventListener('change', () => { state.search = input.value; remember(`var-${variable.name}`, [input.value]); draw(); });
  return html('label', {}, `${variable.label} `, input);
}

async function valuePicker(variable) {
  const chosen = state.chosen[variable.name];
  const select = html('select', { id: `var-${variable.name}` }, html('option', { value: '' }, 'All'));
  const values = await valuesOf(variable, currentView()).catch(() => []);
  for (const value of new Set([...values, ...chosen])) {
    select.append(html('option', { value, selected: chosen.length === 1 && chosen[0] === value ? '' : null }, value));
  }
  if (chosen.length > 1) select.prepend(html('option', { value: '\n', selected: '' }, `${chosen.length} chosen`));
  select.addEventListener('change', () => {
    state.chosen[variable.name] = select.value.trim() ? [select.value] : [];
    remember(`var-${variable.name}`, state.chosen[variable.name]);
    draw();
  });
  return html('label', {}, `${variable.label} `, select);
}

function layOut(dashboard) {
  const grid = document.getElementById('grid');
  for (const panel of dashboard.panels) {
    const { x, y, w, h } = panel.gridPos;
    const body = html('div', { class: 'body' }, message('…'));
    const node = panel.type === 'row' ? html('h2', {}, panel.title)
      : html('section', { 'data-panel': panel.id, 'aria-label': panel.title },
        html('h3', { title: panel.description }, panel.title, html('abbr', { title: panel.description }, 'i')), body);
    node.style.gridArea = `${y + 1} / ${x + 1} / span ${h} / span ${w}`;
    grid.append(node);
    if (panel.type !== 'row') state.bodies.set(panel.id, body);
  }
}

const DRAW = { timeseries: drawTimeseries, stat: drawStat, table: drawTable, heatmap: drawHeatmap };

/** Draws one panel; returns what is told of it in `window.report`. */
async function drawPanel(dashboard, panel, view, shared) {
  const body = state.bodies.get(panel.id);
  const told = { id: panel.id, type: panel.type, title: panel.title, series: 0, error: null, note: null };
  try {
    if (panel.type === 'logs') {
      const lines = await linesOf(dashboard.uid, panel, view);
      told.series = lines?.length ?? 0;
      told.note = lines === null ? 'no Elasticsearch was given' : null;
      drawLines(body, lines, panel.options.displayedFields.filter((name) => !name.startsWith('___')), shared.requests);
    } else {
      const [series, exemplars] = await Promise.all([seriesOf(panel, view), exemplarsOf(panel, view)]);
      told.series = series.length;
      DRAW[panel.type](body, panel, series, view, { ...shared, exemplars });
    }
  } catch (error) {
    told.error = error.message;
    body.replaceChildren(message(error.message, { class: 'message error', 'data-error': '' }));
  }
  return { ...told, noData: body.querySelector('[data-nodata]') !== null };
}

let drawing = null;

async function drawOnce() {
  const { dashboard } = state;
  const view = currentView();
  const events = await eventsOf(dashboard, view).catch(() => []);
  const shared = { events, requests: `/d/${dashboard.uid.replace(/-[a-z]+$/, '-requests')}` };
  const panels = dashboard.panels.filter((panel) => panel.type !== 'row');
  window.report = await Promise.all(panels.map((panel) => drawPanel(dashboard, panel, view, shared)));
  const failed = window.report.filter((one) => one.error).length;
  const status = document.getElementById('clock');
  status.className = failed ? 'late' : '';
  status.textContent = failed ? `${failed} panels failed ${clock(Date.now(), { second: true })}` : `drawn ${clock(Date.now(), { second: true })}`;
  document.title = `ready · ${dashboard.title}`;
  document.documentElement.dataset.ready = 'true';
}

/** Draws now, or once more after the drawing that is under way. */
function draw() {
  drawing = (drawing ?? Promise.resolve()).then(drawOnce);
  return drawing;
}

async function start() {
  const all = await boards();
  if (!state.uid) { window.location.replace(`/d/${all[0].uid}`); return; }
  const nav = document.getElementById('boards');
  for (const one of all) {
    const to = html('a', { href: `/d/${one.uid}`, 'aria-current': one.uid === state.uid ? 'page' : null }, one.title);
    to.addEventListener('click', () => { to.href = `/d/${one.uid}${window.location.search}`; }); // choices and time stay
    nav.append(to);
  }
  state.dashboard = await board(state.uid);
  readAddress(state.dashboard);
  rangePicker();
  layOut(state.dashboard);
  await variablePickers(state.dashboard);
  await draw();
  setInterval(() => { if (!document.hidden && !state.fixed) draw(); }, REFRESH_MS);
  let settled = 0;
  window.addEventListener('resize', () => { clearTimeout(settled); settled = setTimeout(draw, 200); });
}

start().catch((error) => {
  document.title = 'failed';
  document.getElementById('grid').replaceChildren(message(error.message, { class: 'message error', 'data-error': '' }));
});
