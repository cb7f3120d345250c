// The confusion matrix, and its largest confusions as a list; each opens its examples.

const MOST_CLASSES_IN_MATRIX = 100;
const MOST_CLASSES_WITH_NUMBERS = 20;
const MOST_LISTED = 20;
const MOST_NAMES_ACROSS = 6; // more are written upright
const hasMatrix = categories.length <= MOST_CLASSES_IN_MATRIX;
const hasNumbers = categories.length <= MOST_CLASSES_WITH_NUMBERS;
const matrixLabels = [...categories.map((category) => category.label), BACKGROUND];
const indexOfLabel = new Map(categories.map((category, index) => [category.label, index]));
const matrixCells = new Map(); // "truth detected" to its element, and what it shows
const cellKey = (truth, detected) => `${truth} ${detected}`;
let openExamples = () => {}; // set by the gallery

function cellName(truth, detected) {
  if (truth === BACKGROUND) return `${names.get(detected)} where nothing is`;
  if (detected === BACKGROUND) return `${names.get(truth)} missed`;
  if (truth === detected) return `${names.get(truth)} found`;
  return `${names.get(truth)} taken for ${names.get(detected)}`;
}

// Objects of a class, or detections on background: what the cells of a row add up to.
function rowTotal(truth, iou, stop) {
  if (truth !== BACKGROUND) {
    const index = indexOfLabel.get(truth);
    return counts[iou].tp[index][stop] + counts[iou].fn[index][stop];
  }
  return confusion[iou].reduce((sum, cell) => sum + (cell.truth === BACKGROUND ? cell.counts[stop] : 0), 0);
}

function columnTotal(detected, iou, stop) {
  if (detected !== BACKGROUND) {
    const index = indexOfLabel.get(detected);
    return counts[iou].tp[index][stop] + counts[iou].fp[index][stop];
  }
  return confusion[iou].reduce((sum, cell) => sum + (cell.detected === BACKGROUND ? cell.counts[stop] : 0), 0);
}

function buildMatrix() {
  const header = (label) => element("span", { title: names.get(label) }, names.get(label));
  const head = element(
    "tr",
    {},
    element("td", { class: "corner" }, "truth ↓ detected →"),
    ...matrixLabels.map((label) => element("th", { scope: "col" }, header(label))),
    hasNumbers ? element("th", { scope: "col", class: "sum" }, element("span", {}, "in all")) : null,
  );
  const lines = matrixLabels.map((truth) => {
    const cells = matrixLabels.map((detected) => {
      const node = element("td", { "data-truth": truth, "data-detected": detected, class: truth === detected ? "right" : "wrong" });
      matrixCells.set(cellKey(truth, detected), { node, number: 0, share: 0 });
      return node;
    });
    const sum = hasNumbers ? element("td", { class: "sum", "data-row-sum": truth }) : null;
    return element("tr", {}, element("th", { scope: "row" }, header(truth)), ...cells, sum);
  });
  const sums = matrixLabels.map((detected) => element("td", { class: "sum", "data-column-sum": detected }));
  if (hasNumbers) lines.push(element("tr", {}, element("th", { scope: "row", class: "sum" }, "in all"), ...sums, element("td")));
  const table = byId("matrix");
  table.classList.add(hasNumbers ? "with-numbers" : "dense");
  table.classList.toggle("tall", hasNumbers && categories.length > MOST_NAMES_ACROSS);
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
  matrixCells.get(cellKey(matrixLabels[0], matrixLabels[0])).node.tabIndex = 0;
}

// Only what changes is touched: a matrix of 80 classes has 6,561 cells.
function setCell(cell, number, share) {
  if (cell.number === number && cell.share === share) return;
  const { node } = cell;
  if (cell.number !== number) {
    node.dataset.count = number;
    if (hasNumbers) node.textContent = number > 0 ? count(number) : "";
  }
  node.style.setProperty("--share", share.toFixed(2));
  node.toggleAttribute("data-strong", share > 0.62);
  Object.assign(cell, { number, share });
}

function showMatrix() {
  const { iou, stop } = state;
  const seen = new Set();
  const rowTotals = new Map(matrixLabels.map((label) => [label, rowTotal(label, iou, stop)]));
  for (const { truth, detected, counts: numbers } of confusion[iou]) {
    const number = numbers[stop];
    if (number === 0) continue;
    const key = cellKey(truth, detected);
    seen.add(key);
    const share = Math.max(0.06, Math.sqrt(number / rowTotals.get(truth)));
    setCell(matrixCells.get(key), number, Math.round(share * 50) / 50);
  }
  for (const [key, cell] of matrixCells) if (cell.number > 0 && !seen.has(key)) setCell(cell, 0, 0);
  for (const node of document.querySelectorAll("[data-row-sum]")) node.textContent = count(rowTotals.get(Number(node.dataset.rowSum)));
  for (const node of document.querySelectorAll("[data-column-sum]")) node.textContent = count(columnTotal(Number(node.dataset.columnSum), iou, stop));
}

let cellRead = null;

function readCell(node) {
  cellRead = node;
  const [truth, detected] = [Number(node.dataset.truth), Number(node.dataset.detected)];
  const number = Number(node.dataset.count ?? 0);
  const total = rowTotal(truth, state.iou, state.stop);
  const share = truth === BACKGROUND ? "" : ` of ${plural(total, "object")} (${percent(number, total)})`;
  const text = truth === BACKGROUND && detected === BACKGROUND ? "" : `${cellName(truth, detected)}: ${count(number)}${share}`;
  byId("matrix-reading").textContent = text;
  node.setAttribute("aria-label", text);
}

function showConfusions() {
  const { iou, stop } = state;
  const rows = confusion[iou]
    .filter(({ truth, detected }) => truth !== detected && truth !== BACKGROUND && detected !== BACKGROUND)
    .map((cell) => ({ ...cell, number: cell.counts[stop] }))
    .filter((cell) => cell.number > 0)
    .sort((one, other) => other.number - one.number);
  const shown = hasMatrix ? rows.slice(0, MOST_LISTED) : rows;
  fillRows(byId("confusions"), shown, newConfusionLine, setConfusionLine);
  const numLeftOut = content.confusion[iou].num_left_out;
  const others = rows.length - shown.length;
  byId("confusions-note").textContent = [
    rows.length === 0 ? "No object is taken for another class at this point." : "",
    others > 0 ? `${plural(others, "smaller confusion")} not listed.` : "",
    numLeftOut > 0 ? `The report keeps the 50 confusions that cost most; ${plural(numLeftOut, "other")} left out.` : "",
  ].join(" ");
}

function newConfusionLine() {
  const line = element("tr", {}, element("th", { scope: "row" }), element("td", { class: "name" }), element("td", { "data-key": "count" }), element("td"));
  const open = element("button", { type: "button", class: "quiet", onclick: () => openExamples(Number(line.dataset.truth), Number(line.dataset.detected)) }, "examples");
  line.append(element("td", { class: "controls" }, open));
  return line;
}

function setConfusionLine(line, { truth, detected, number }) {
  const total = rowTotal(truth, state.iou, state.stop);
  const texts = [names.get(truth), names.get(detected), count(number), percent(number, total)];
  texts.forEach((text, at) => setText(line.children[at], text));
  Object.assign(line.dataset, { truth, detected });
  line.querySelector("button").setAttribute("aria-label", `examples: ${cellName(truth, detected)}`);
}

function openCell(node) {
  if (Number(node.dataset.count) > 0) openExamples(Number(node.dataset.truth), Number(node.dataset.detected));
}

// The arrow keys move over the matrix as over a grid; one cell of it is in the tab order.
function moveInMatrix(event) {
  const node = event.target.closest("td[data-truth]");
  if (node === null) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    openCell(node);
    return;
  }
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const at = [node.dataset.truth, node.dataset.detected].map((label) => matrixLabels.indexOf(Number(label)));
  const [row, column] = at.map((index, axis) => Math.min(matrixLabels.length - 1, Math.max(0, index + moves[event.key][axis])));
  const next = matrixCells.get(cellKey(matrixLabels[row], matrixLabels[column])).node;
  node.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

if (hasMatrix) {
  buildMatrix();
  const matrix = byId("matrix");
  for (const type of ["pointerover", "focusin"])
    matrix.addEventListener(type, (event) => {
      const node = event.target.closest("td[data-truth]");
      if (node !== null) readCell(node);
    });
  matrix.addEventListener("click", (event) => {
    const node = event.target.closest("td[data-truth]");
    if (node !== null) openCell(node);
  });
  matrix.addEventListener("keydown", moveInMatrix);
  follow(() => {
    showMatrix();
    if (cellRead !== null) readCell(cellRead);
  });
}
byId("matrix-part").hidden = !hasMatrix;
follow(showConfusions);
