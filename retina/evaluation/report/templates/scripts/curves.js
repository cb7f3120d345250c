// Precision over recall, and precision, recall and F1 over the score.

const SUMMED = "summed";
const MEAN = "mean";
const chosen = byId("curve-class");

function options() {
  const groups = [
    element("option", { value: SUMMED }, "all classes, counts summed"),
    element("option", { value: MEAN }, "mean over classes"),
  ];
  return groups.concat(categories.map((category, index) => element("option", { value: index }, category.name)));
}

// The values of the 101 stops, for all classes together, their mean, or one class.
function ratesOverScore(iou, which) {
  const { tp, fp, fn } = counts[iou];
  const stops = [...Array(NUM_STOPS).keys()];
  if (which === SUMMED) return stops.map((stop) => rates(totals[iou].tp[stop], totals[iou].fp[stop], totals[iou].fn[stop]));
  if (which !== MEAN) return stops.map((stop) => rates(tp[which][stop], fp[which][stop], fn[which][stop]));
  return stops.map((stop) => meanRates(tp, fp, fn, stop));
}

// Over the classes that have objects; precision over those of them that have detections.
function meanRates(tp, fp, fn, stop) {
  const sums = { precision: 0, recall: 0, f1: 0 };
  const numbers = { precision: 0, recall: 0, f1: 0 };
  tp.forEach((row, index) => {
    if (row[stop] + fn[index][stop] === 0) return;
    for (const [name, value] of Object.entries(rates(row[stop], fp[index][stop], fn[index][stop])))
      if (value !== null) {
        sums[name] += value;
        numbers[name] += 1;
      }
  });
  const mean = (name) => (numbers[name] > 0 ? sums[name] / numbers[name] : null);
  return { precision: mean("precision"), recall: mean("recall"), f1: mean("f1") };
}

// Precision at 101 recalls of a class, or the mean; null where the report keeps none.
function precisionAtRecall(iou, which) {
  const { mean, categories: kept } = content.curves[iou].precision_at_recall;
  if (which === MEAN || which === SUMMED) return mean;
  if (kept === null) return null;
  if (Array.isArray(kept)) return kept[which] ?? null;
  const at = kept.labels.indexOf(categories[which].label);
  return at < 0 ? null : kept.precision[at];
}

function whichCurves() {
  return chosen.value === SUMMED || chosen.value === MEAN ? chosen.value : Number(chosen.value);
}

const curveLines = { precision: null, recall: null, f1: null };
let overScore = [];

function drawCurves() {
  const which = whichCurves();
  const { iou } = state;
  const precisionRecall = byId("chart-pr");
  chartFrame(precisionRecall, "recall", "precision");
  const curves = IOUS.map((one) => [one, precisionAtRecall(one, which)]);
  const recallOf = (one) => (index) => content.curves[one].recall_levels[index];
  for (const [one, curve] of curves)
    if (curve) precisionRecall.append(line(curve, recallOf(one), one === IOUS[0] ? "iou-first" : "iou-second"));
  const isMissing = curves.every(([, curve]) => !curve);
  const ofMean = typeof which === "number" ? "" : " The curve is the mean over classes, as AP is.";
  byId("pr-note").textContent = isMissing
    ? typeof which === "number" && (Array.isArray(content.curves[iou].precision_at_recall.categories) || categories[which].num_objects === 0)
      ? "This class has no object: there is no curve."
      : typeof which === "number" ? "The report keeps this curve for the 50 classes with most objects only." : "There is no curve without objects."
    : `At all scores; precision is the highest at that recall or above.${ofMean}`;
  overScore = ratesOverScore(iou, which);
  const chart = byId("chart-score");
  chartFrame(chart, "score", "precision, recall, F1");
  for (const name of Object.keys(curveLines))
    chart.append(line(overScore.map((one) => one[name]), (index) => index / 100, `series-${name}`));
  chart.append(svg("line", { id: "chart-stop", class: "stop", y1: chartY(0), y2: chartY(1) }));
  for (const name of Object.keys(curveLines)) chart.append(svg("circle", { class: `series-${name}`, id: `dot-${name}`, r: 4 }));
}

let drawn = "";

function showCurves() {
  const wanted = `${state.iou} ${chosen.value}`;
  if (drawn !== wanted) drawCurves();
  drawn = wanted;
  const at = overScore[state.stop];
  const x = chartX(state.stop / 100);
  for (const end of ["x1", "x2"]) byId("chart-stop").setAttribute(end, x);
  for (const name of Object.keys(curveLines)) {
    byId(`curve-${name}`).textContent = decimals(at[name]);
    const dot = byId(`dot-${name}`);
    dot.setAttribute("visibility", at[name] === null ? "hidden" : "visible");
    if (at[name] !== null) {
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", chartY(at[name]));
    }
  }
  const who = chosen.selectedOptions[0].textContent;
  byId("chart-score").setAttribute("aria-label", `${who}, ${pointText()}: precision ${decimals(at.precision)}, recall ${decimals(at.recall)}, F1 ${decimals(at.f1)}`);
  byId("chart-pr").setAttribute("aria-label", `Precision over recall at IoU ${IOUS.join(" and ")}: ${who}`);
}

// A press in the chart over the score moves the operating point there.
function pressed(event) {
  if (event.buttons !== 1) return;
  const box = byId("chart-score").getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * CHART.width;
  const share = (x - chartX(0)) / (chartX(1) - chartX(0));
  moveTo({ stop: Math.min(NUM_STOPS - 1, Math.max(0, Math.round(share * 100))) });
}

chosen.append(...options());
chosen.addEventListener("change", showCurves);
for (const type of ["pointerdown", "pointermove"]) byId("chart-score").addEventListener(type, pressed);
follow(showCurves);
