/** Elements and SVG nodes made by name; text is only ever set as text, so a label value can be nothing else. */

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

export const html = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** A coloured mark before a name. Its colour goes through the style object, which the page's policy allows. */
export function swatch(colour) {
  const mark = html('span', { class: 'swatch' });
  mark.style.background = colour;
  return mark;
}

/** A link, or plain text where the address is neither a path of this page nor http(s). */
export function link(address, text) {
  if (!/^(\/(?!\/)|https?:\/\/)/.test(address)) return html('span', {}, text);
  return html('a', { href: address }, text);
}

export const message = (text, attributes = {}) => html('p', { class: 'message', ...attributes }, text);
