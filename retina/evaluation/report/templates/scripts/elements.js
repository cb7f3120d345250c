// Elements of the page. Text is always set as text: a name that looks like HTML stays a name.

const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A line for each row: those that are there are written anew, which is faster than to replace them.
function fillRows(body, rows, newLine, setLine) {
  while (body.children.length > rows.length) body.lastElementChild.remove();
  while (body.children.length < rows.length) body.append(newLine());
  rows.forEach((row, at) => setLine(body.children[at], row));
}

// Moves the focus among the elements of a group with the arrow keys, of which one is in the tab order.
function step(elements, current, key) {
  const moves = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  const at = elements.indexOf(current);
  if (key === "Home") return elements[0];
  if (key === "End") return elements[elements.length - 1];
  if (!(key in moves)) return null;
  return elements[(at + moves[key] + elements.length) % elements.length];
}
