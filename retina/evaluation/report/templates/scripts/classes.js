// The table of classes: sortable by every column, filtered by name, a page of it at a time.

const ROWS_PER_PAGE = 50;
const classView = { key: "num_objects", descending: true, filter: "", page: 0, isWhole: false };

const CLASS_COLUMNS = [
  { key: "name", title: "class", show: (value) => value },
  { key: "num_objects", title: "objects", show: count },
  { key: "tp", title: "TP", show: count, live: true },
  { key: "fp", title: "FP", show: count, live: true },
  { key: "fn", title: "FN", show: count, live: true },
  { key: "precision", title: "precision", show: decimals, live: true },
  { key: "recall", title: "recall", show: decimals, live: true },
  { key: "f1", title: "F1", show: decimals, live: true },
  { key: "AP", title: "AP", show: decimals },
  { key: "AP50", title: "AP50", show: decimals },
  { key: "AP75", title: "AP75", show: decimals },
  { key: "AR100", title: "AR100", show: decimals },
  { key: "best_f1", title: "best F1", show: decimals },
  { key: "best_f1_score", title: "at score", show: (value) => decimals(value, 2) },
];
if (categories.some(({ threshold }) => threshold !== null))
  CLASS_COLUMNS.push({ key: "threshold", title: "threshold", show: (value) => decimals(value, 2) });

function classRow(category, index) {
  const [tp, fp, fn] = ["tp", "fp", "fn"].map((kind) => counts[state.iou][kind][index][state.stop]);
  return { ...category, tp, fp, fn, ...rates(tp, fp, fn) };
}

// Rows without the number come last in both directions.
function compared(one, other) {
  const [a, b] = [one[classView.key], other[classView.key]];
  if (a === null || b === null) return (a === null) - (b === null) || one.label - other.label;
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (classView.descending ? -order : order) || one.label - other.label;
}

function showClasses() {
  const wanted = classView.filter.trim().toLocaleLowerCase();
  const rows = categories.map(classRow).filter((row) => row.name.toLocaleLowerCase().includes(wanted));
  rows.sort(compared);
  const perPage = classView.isWhole ? Math.max(1, rows.length) : ROWS_PER_PAGE;
  const numPages = Math.max(1, Math.ceil(rows.length / perPage));
  const page = Math.min(classView.page, numPages - 1);
  if (!classView.isWhole) classView.page = page;
  const first = page * perPage;
  const shown = rows.slice(first, first + perPage);
  fillRows(byId("classes-body"), shown, newClassLine, setClassLine);
  for (const cell of byId("classes-head").children) {
    const isSorted = cell.dataset.key === classView.key;
    cell.setAttribute("aria-sort", !isSorted ? "none" : classView.descending ? "descending" : "ascending");
  }
  byId("classes-range").textContent =
    rows.length === 0 ? "No class has this in its name." : `${first + 1}–${first + shown.length} of ${plural(rows.length, "class", "classes")}`;
  byId("classes-pager").hidden = numPages === 1;
  byId("classes-previous").disabled = page === 0;
  byId("classes-next").disabled = page === numPages - 1;
}

function newClassLine() {
  const cells = CLASS_COLUMNS.map(({ key, live }) =>
    key === "name" ? element("th", { scope: "row" }) : element("td", { "data-key": key, class: live ? "live" : null }),
  );
  return element("tr", {}, ...cells);
}

function setClassLine(line, row) {
  CLASS_COLUMNS.forEach(({ key, show }, at) => setText(line.children[at], show(row[key])));
  line.dataset.label = row.label;
  line.firstElementChild.title = row.name;
}

function sortBy(key) {
  const isAgain = classView.key === key;
  classView.descending = isAgain ? !classView.descending : key !== "name";
  Object.assign(classView, { key, page: 0 });
  showClasses();
}

// Paper has no pager: it gets every row.
function showAllClasses(isWhole) {
  classView.isWhole = isWhole;
  showClasses();
}

function turnPage(step) {
  classView.page += step;
  showClasses();
}

for (const { key, title, live } of CLASS_COLUMNS)
  byId("classes-head").append(
    element("th", { scope: "col", "data-key": key, class: live ? "live" : null }, element("button", { type: "button", onclick: () => sortBy(key) }, title)),
  );
byId("classes-filter").addEventListener("input", (event) => {
  Object.assign(classView, { filter: event.target.value, page: 0 });
  showClasses();
});
byId("classes-previous").addEventListener("click", () => turnPage(-1));
byId("classes-next").addEventListener("click", () => turnPage(1));
follow(showClasses);
