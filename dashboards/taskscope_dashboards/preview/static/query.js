/** Asks this page's server, which asks Prometheus and Elasticsearch; turns answers into series. */

export const SCRAPE_S = 10;
const EXEMPLARS = 40;

async function ask(path, parameters) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `${path}: status ${answer.status}`);
  return body;
}

/** A value inside a double-quoted PromQL pattern: first as a pattern, then as a string. */
const pattern = (value) => value.replace(/[\\^$*+?.()|[\]{}]/g, '\\$&').replace(/["\\]/g, '\\$&');

/** The query with the reader's choices and Grafana's own variables put in. */
export function interpolate(expr, { chosen, stepS, rangeS }) {
  const rate = Math.max(stepS + SCRAPE_S, 4 * SCRAPE_S);
  const own = { __rate_interval: `${rate}s`, __interval: `${stepS}s`, __range: `${rangeS}s` };
  return expr.replace(/\$\{?(\w+)\}?/g, (whole, name) => {
    if (name in own) return own[name];
    if (!(name in chosen)) return whole;
    const values = chosen[name];
    return values.length ? `(${values.map(pattern).join('|')})` : '.*';
  });
}

const seriesName = (legend, labels) => legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '') || 'value';

const number = (text) => (text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text));

/** All series of a panel: {refId, name, labels, points: [[milliseconds, value], …]}. */
export async function seriesOf(panel, view) {
  const answers = await Promise.all(panel.targets.map((target) => oneTarget(target, view)));
  return answers.flat();
}

async function oneTarget(target, view) {
  const query = interpolate(target.expr, view);
  const instant = target.instant;
  const { data } = await ask(`/api/prometheus/${instant ? 'query' : 'query_range'}`, instant
    ? { query, time: view.endS }
    : { query, start: view.startS, end: view.endS, step: view.stepS });
  return data.result.map((one) => ({
    refId: target.refId,
    labels: one.metric,
    name: seriesName(target.legendFormat, one.metric),
    points: (one.values ?? [one.value]).map(([at, value]) => [at * 1000, number(value)]),
  }));
}

/** Traces behind single observations: {at, value, trace}; none where the server keeps no exemplars. */
export async function exemplarsOf(panel, view) {
  const targets = panel.targets.filter((target) => target.exemplar);
  const answers = await Promise.all(targets.map((target) => ask('/api/prometheus/query_exemplars', {
    query: interpolate(target.expr, view), start: view.startS, end: view.endS,
  }).catch(() => ({ data: [] }))));
  const found = answers.flatMap(({ data }) => data.flatMap((one) => one.exemplars)).map((one) => ({
    at: one.timestamp * 1000, value: number(one.value), trace: one.labels.trace_id ?? '',
  })).filter((one) => /^[0-9a-f]{32}$/.test(one.trace));
  // One a column is enough to click on: the slowest, which is the one to look into.
  const slowest = new Map();
  for (const one of found) {
    const column = Math.floor(((one.at / 1000 - view.startS) / view.rangeS) * EXEMPLARS);
    if (!slowest.has(column) || slowest.get(column).value < one.value) slowest.set(column, one);
  }
  return [...slowest.values()];
}

/** Events to mark on every graph: {at, title, colour}. */
export async function eventsOf(dashboard, view) {
  const found = await Promise.all(dashboard.annotations.list.map(async (annotation) => {
    const { data } = await ask('/api/prometheus/query_range', {
      query: annotation.target.expr, start: view.startS, end: view.endS, step: view.stepS,
    });
    return data.result.flatMap((one) => {
      const title = seriesName(annotation.titleFormat, one.metric);
      const times = annotation.useValueForTime
        ? [...new Set(one.values.map(([, value]) => Number(value)))]
        : [one.values[0][0] * 1000];
      return times.map((at) => ({ at, title, colour: annotation.iconColor }));
    });
  }));
  return found.flat().filter((event) => event.at >= view.startS * 1000 && event.at <= view.endS * 1000);
}

/** The values a variable may take, sorted. */
export async function valuesOf(variable, view) {
  const [, match, label] = /^label_values\((.+),\s*(\w+)\)$/s.exec(variable.definition);
  const { data } = await ask('/api/prometheus/label_values', {
    label, match: interpolate(match, view), start: view.startS, end: view.endS,
  });
  return [...data].sort();
}

/** Log lines of a panel, newest first, or null where this page was given no Elasticsearch. */
export async function linesOf(uid, panel, view) {
  const parameters = new URLSearchParams({ board: uid, panel: panel.id, from: view.startS * 1000, to: view.endS * 1000 });
  for (const name of ['route', 'level', 'exception']) {
    for (const value of view.chosen[name] ?? []) parameters.append(name, value);
  }
  const trace = /[0-9a-f]{32}/.exec(view.search ?? '');
  if (trace) parameters.set('trace', trace[0]);
  const { lines } = await ask('/api/logs', parameters);
  return lines;
}

export const boards = () => ask('/api/boards', {});
export const board = (uid) => ask('/api/board', { uid });
