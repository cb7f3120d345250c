// What report.json says, with its packed counts written out again.

const NUM_STOPS = 101;
const BACKGROUND = -1;

const content = JSON.parse(byId("content").textContent);
const pictureUrls = JSON.parse(byId("pictures").textContent);

// The first value, then position and value of every change.
function unpacked(changes) {
  const values = new Array(NUM_STOPS).fill(changes[0]);
  for (let at = 1; at < changes.length; at += 2) values.fill(changes[at + 1], changes[at]);
  return values;
}

function summed(rows) {
  const sums = new Array(NUM_STOPS).fill(0);
  for (const row of rows) for (let stop = 0; stop < NUM_STOPS; stop++) sums[stop] += row[stop];
  return sums;
}

const IOUS = Object.keys(content.counts).sort();
const categories = content.categories;
const names = new Map(categories.map((category) => [category.label, category.name]));
names.set(BACKGROUND, "background");

const counts = {}; // by IoU, then tp / fp / fn, then class
const totals = {}; // by IoU, then tp / fp / fn: over all classes
const confusion = {}; // by IoU: its cells
for (const iou of IOUS) {
  counts[iou] = {};
  totals[iou] = {};
  for (const kind of ["tp", "fp", "fn"]) {
    counts[iou][kind] = content.counts[iou][kind].map(unpacked);
    totals[iou][kind] = summed(counts[iou][kind]);
  }
  confusion[iou] = content.confusion[iou].cells.map((cell) => ({
    ...cell,
    counts: unpacked(cell.counts),
  }));
}
