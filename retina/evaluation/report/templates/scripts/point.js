// The bar with the slider, and every number of all classes together.

const slider = byId("score");

function showPoint() {
  const { stop, iou } = state;
  const [tp, fp, fn] = ["tp", "fp", "fn"].map((kind) => totals[iou][kind][stop]);
  const { precision, recall, f1 } = rates(tp, fp, fn);
  const numImages = content.head.num_images;
  const shown = {
    tp: count(tp),
    fp: count(fp),
    fn: count(fn),
    precision: decimals(precision),
    recall: decimals(recall),
    f1: decimals(f1),
    fppi: numImages > 0 ? decimals(fp / numImages, 2) : "–",
  };
  for (const [name, text] of Object.entries(shown)) byId(`point-${name}`).textContent = text;
  slider.value = stop;
  slider.setAttribute("aria-valuetext", `score ${scoreText()}`);
  byId("score-value").textContent = scoreText();
  for (const node of document.querySelectorAll("[data-point]")) node.textContent = pointText();
  for (const radio of document.querySelectorAll("input[name=iou]")) radio.checked = radio.value === iou;
}

slider.addEventListener("input", () => moveTo({ stop: Number(slider.value) }));
byId("suggested").addEventListener("click", () => moveTo({ stop: startingStop() }));
for (const radio of document.querySelectorAll("input[name=iou]"))
  radio.addEventListener("change", () => moveTo({ iou: radio.value }));
follow(showPoint);
