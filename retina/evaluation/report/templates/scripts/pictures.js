// A picture with its boxes, which are drawn in the pixels of the image.

// A pixel of the page in pixels of the image, about: text keeps its size whatever the image's.
function unitOf(image, isLarge) {
  const isNarrow = innerWidth < 640;
  const width = isLarge ? Math.min(900, innerWidth - 40) : isNarrow ? 165 : 265;
  const height = isLarge ? innerHeight * 0.62 : isNarrow ? 128 : 184;
  return Math.max(image.width / width, image.height / height);
}

function boxGroup(image, box, look, { isSubject, text, unit, attributes = {} }) {
  const [x1, y1, x2, y2] = box;
  const frame = { x: x1, y: y1, width: Math.max(x2 - x1, unit), height: Math.max(y2 - y1, unit) };
  const group = svg("g", { class: `box ${look}${isSubject ? " subject" : ""}`, ...attributes }, svg("rect", { class: "under", ...frame }), svg("rect", { class: "over", ...frame }));
  if (text) {
    const isAtTop = y1 > 13 * unit;
    const isAtRight = x1 > image.width * 0.7;
    const place = { x: isAtRight ? Math.min(x2, image.width - unit) : Math.max(x1, unit), y: isAtTop ? y1 - 4 * unit : Math.min(y2, image.height - 14 * unit) + 12 * unit };
    group.append(svg("text", { ...place, "font-size": 11 * unit, "stroke-width": 3 * unit, "text-anchor": isAtRight ? "end" : "start" }, text));
  }
  return group;
}

const truthText = (one) => names.get(one.label) + (one.is_crowd ? " (crowd)" : "");
const detectionText = (one) => `${names.get(one.label)} ${decimals(one.score, 2)}`;

// `subject` names the detection and the object that the picture is about, by their places.
function pictureOf(image, subject, { isLarge = false } = {}) {
  const url = image.picture === null ? undefined : pictureUrls[image.picture];
  const unit = unitOf(image, isLarge);
  const what = subject.note ?? "";
  const node = svg("svg", { class: "picture", viewBox: `0 0 ${image.width} ${image.height}`, role: "img", "aria-label": `${image.file_name}: ${what}` });
  node.append(svg("rect", { class: "canvas", width: image.width, height: image.height }));
  if (url) node.append(svg("image", { href: url, width: image.width, height: image.height, preserveAspectRatio: "none" }));
  const order = (list, at) => [...list.entries()].sort(([a], [b]) => (a === at) - (b === at));
  for (const [at, one] of order(image.truth, subject.truth)) {
    const isSubject = at === subject.truth;
    const look = one.is_crowd ? "truth crowd" : "truth";
    node.append(boxGroup(image, one.box, look, { isSubject, unit, text: isSubject || isLarge ? truthText(one) : "" }));
  }
  for (const [at, one] of order(image.detections, subject.detection)) {
    const isSubject = at === subject.detection;
    node.append(boxGroup(image, one.box, "detection", { isSubject, unit, text: isSubject || isLarge ? detectionText(one) : "", attributes: { "data-score": one.score } }));
  }
  return { node, isBlank: !url };
}

// Detections below the operating point, everywhere or in a part of the page.
function hideBelow(root) {
  const score = state.stop / 100;
  for (const node of root.querySelectorAll("[data-score]")) node.classList.toggle("below", Number(node.dataset.score) < score);
}
