// The gallery, and the dialog that shows a picture large or the examples of a confusion.

const dialog = byId("dialog");

function subjectOf(item) {
  return { detection: item.detection ?? null, truth: item.truth ?? null, note: item.note ?? "" };
}

function captionOf(item, image, isBlank) {
  const note = item.note ?? "";
  return element(
    "figcaption",
    {},
    note ? element("span", { class: "note" }, note) : null,
    element("span", { class: "file", title: image.file_name }, image.file_name),
    isBlank ? element("span", { class: "blank" }, "no picture: a blank canvas") : null,
  );
}

function figureOf(item) {
  const image = content.images[item.image];
  const { node, isBlank } = pictureOf(image, subjectOf(item));
  const open = element("button", { type: "button", class: "open", "aria-label": `Show large: ${image.file_name}, ${item.note ?? ""}`, onclick: () => openPicture(item) }, node);
  return element("figure", { "data-image": item.image }, open, captionOf(item, image, isBlank));
}

function boxLine(kind, one, isSubject) {
  return element(
    "tr",
    { class: isSubject ? "subject" : null, "data-score": kind === "detection" ? one.score : null },
    element("th", { scope: "row", class: kind }, kind === "truth" ? (one.is_crowd ? "crowd" : "truth") : "detection"),
    element("td", { class: "name" }, names.get(one.label)),
    element("td", {}, kind === "detection" ? decimals(one.score) : ""),
    element("td", {}, one.box.map((value) => decimals(value, 0)).join(", ")),
  );
}

function boxTable(image, item) {
  const head = ["box", "class", "score", "x1, y1, x2, y2"].map((title) => element("th", { scope: "col", class: title === "class" ? "name" : null }, title));
  const truth = image.truth.map((one, at) => boxLine("truth", one, at === item.truth));
  const detections = image.detections.map((one, at) => boxLine("detection", one, at === item.detection));
  return element("div", { class: "scroll" }, element("table", { class: "boxes" }, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...truth, ...detections)));
}

let shownBefore = null; // the examples that a picture was opened from

function fillDialog(title, children) {
  byId("dialog-title").textContent = title;
  byId("dialog-body").replaceChildren(...children);
  byId("dialog-back").hidden = shownBefore === null;
  hideBelow(dialog);
  byId("dialog-body").scrollTop = 0;
}

function openDialog(title, ...children) {
  shownBefore = dialog.open ? { title: byId("dialog-title").textContent, children: [...byId("dialog-body").children] } : null;
  fillDialog(title, children);
  if (!dialog.open) dialog.showModal();
}

function goBack() {
  const { title, children } = shownBefore;
  shownBefore = null;
  fillDialog(title, children);
  byId("dialog-close").focus();
}

function openPicture(item) {
  const image = content.images[item.image];
  const { node, isBlank } = pictureOf(image, subjectOf(item), { isLarge: true });
  const figure = element("figure", { class: "large" }, node, captionOf(item, image, isBlank));
  openDialog(image.file_name, figure, boxTable(image, item));
}

// Whether the cell counts an example at this point: its stops are the ends of runs.
function isCounted({ stops }) {
  for (let at = 0; at < stops.length; at += 2) if (stops[at] <= state.stop && state.stop <= stops[at + 1]) return true;
  return false;
}

function whereCounted({ stops }) {
  const runs = [];
  for (let at = 0; at < stops.length; at += 2) runs.push(`${decimals(stops[at] / 100, 2)} – ${decimals(stops[at + 1] / 100, 2)}`);
  return `counted at scores ${runs.join(", ")}`;
}

function figureElsewhere(item) {
  const figure = figureOf(item);
  figure.querySelector("figcaption").append(element("span", { class: "file" }, whereCounted(item)));
  return figure;
}

openExamples = (truth, detected) => {
  const isCell = (one) => one.truth === truth && one.detected === detected;
  const items = content.gallery.confusions.find((one) => one.iou === state.iou && isCell(one))?.items ?? [];
  const number = confusion[state.iou].find(isCell)?.counts[state.stop] ?? 0;
  const title = `${cellName(truth, detected)}: ${count(number)} at ${pointText()}`;
  const counted = items.filter(isCounted);
  const others = items.filter((item) => !isCounted(item));
  const children = [];
  if (items.length === 0) children.push(element("p", {}, "This page has no room for an example of this cell."));
  else if (counted.length === 0) children.push(element("p", {}, `This page has no room for an example of this cell at ${pointText()}.`));
  else {
    const which = counted.length < number ? `${count(counted.length)} of these ${count(number)}` : number === 1 ? "This one" : `All ${count(number)}`;
    children.push(element("p", {}, `${which}, at ${pointText()}.`), element("div", { class: "figures" }, ...counted.map(figureOf)));
  }
  if (others.length > 0) {
    const hidden = detected === BACKGROUND ? "" : " A detection below the score of the operating point is hidden, or faint if so chosen.";
    children.push(element("p", {}, `${plural(others.length, "example")} that the cell counts at other scores.${hidden}`), element("div", { class: "figures" }, ...others.map(figureElsewhere)));
  }
  openDialog(title, ...children);
};

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const one of tabs) {
    const isChosen = one === tab;
    one.setAttribute("aria-selected", isChosen);
    one.tabIndex = isChosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !isChosen;
  }
  fill(tab);
  hideBelow(byId(tab.getAttribute("aria-controls")));
}

// Pictures are drawn when they are first looked at, or printed.
function fill(tab) {
  const figures = byId(tab.getAttribute("aria-controls")).querySelector(".figures");
  if (figures === null || figures.childElementCount > 0) return;
  figures.append(...content.gallery[tab.dataset.kind].map(figureOf));
}

function showBoxes() {
  const look = document.documentElement.dataset;
  for (const kind of ["truth", "detections"])
    for (const box of document.querySelectorAll(`input[data-boxes=${kind}]`)) box.checked = look[kind] !== "off";
  for (const box of document.querySelectorAll("input[data-boxes=faint]")) box.checked = look.below === "faint";
}

function switchBoxes(event) {
  const look = document.documentElement.dataset;
  const { boxes } = event.target.dataset;
  if (boxes === "faint") look.below = event.target.checked ? "faint" : "hidden";
  else look[boxes] = event.target.checked ? "on" : "off";
  showBoxes();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const next = step(tabs, tab, event.key);
    if (next === null) return;
    event.preventDefault();
    choose(next);
    next.focus();
  });
}
for (const box of document.querySelectorAll("input[data-boxes]")) box.addEventListener("change", switchBoxes);
byId("dialog-back").addEventListener("click", goBack);
byId("dialog-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});
showBoxes();
choose(tabs.find((tab) => content.gallery[tab.dataset.kind].length > 0) ?? tabs[0]);
follow(() => {
  for (const panel of document.querySelectorAll("[role=tabpanel]:not([hidden])")) hideBelow(panel);
  if (dialog.open) hideBelow(dialog);
});
