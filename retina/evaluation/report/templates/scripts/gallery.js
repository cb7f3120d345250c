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

openExamples = (truth, detected) => {
  const kept = content.gallery.confusions.find((one) => one.truth === truth && one.detected === detected);
  const cell = confusion[state.iou].find((one) => one.truth === truth && one.detected === detected);
  const number = cell ? cell.counts[state.stop] : 0;
  const title = `${cellName(truth, detected)}: ${count(number)} at ${pointText()}`;
  if (!kept || kept.items.length === 0) {
    openDialog(title, element("p", {}, "The report keeps no example of this cell."));
    return;
  }
  const note = element("p", {}, `${plural(kept.items.length, "example")}, the most confident first, of any score and at IoU 0.50. A detection below the score of the operating point is hidden, or faint if so chosen.`);
  openDialog(title, note, element("div", { class: "figures" }, ...kept.items.map(figureOf)));
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
