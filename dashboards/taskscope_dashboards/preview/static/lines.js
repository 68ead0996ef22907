/** Log lines, newest first; a line opens into its fields, and its trace id leads to all lines of that trace. */

import { html, link, message } from './dom.js';
import { clock, colour } from './format.js';

const LEVELS = { debug: 'blue', info: 'green', warning: 'yellow', error: 'red', critical: 'purple' };

function line(fields, beside, requests) {
  const level = String(fields['log.level'] ?? '');
  const mark = html('span', { class: 'level' }, level);
  mark.style.color = colour(LEVELS[level] ?? 'text');
  const details = Object.entries(fields).sort().flatMap(([name, value]) => {
    const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
    const shown = name === 'trace.id' ? link(`${requests}?var-search=${encodeURIComponent(`trace.id:"${text}"`)}`, text) : text;
    return [html('dt', {}, name), html('dd', {}, shown)];
  });
  const more = beside.map((name) => fields[name]).filter((value) => value !== undefined && value !== null).join(' ');
  return html('details', {}, html('summary', {}, html('time', {}, clock(Date.parse(fields['@timestamp']), { second: true, date: true })), mark,
    html('span', { class: 'text' }, String(fields.message ?? '')), html('span', { class: 'more' }, more)), html('dl', {}, details));
}

/** beside: names of the fields that stand beside the message. */
export function drawLines(body, lines, beside, requests) {
  if (lines === null) {
    body.replaceChildren(message('Log lines need Elasticsearch: start this page with --elasticsearch URL.', { 'data-note': '' }));
  } else if (!lines.length) {
    body.replaceChildren(message('No lines', { 'data-nodata': '' }));
  } else {
    body.replaceChildren(html('div', { class: 'scroll' }, lines.map((fields) => line(fields, beside, requests))));
  }
}
