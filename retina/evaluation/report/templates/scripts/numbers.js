// How numbers are written: as Python writes them, so that a number is the same wherever it stands.

// An exact tie goes to the even digit, as in Python; toFixed alone would round it up.
function decimals(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const halves = value * 2 ** (digits + 1);
  const scaled = value * 10 ** digits;
  if (Number.isInteger(halves) && halves % 2 !== 0 && Number.isInteger(scaled * 2)) {
    const lower = Math.floor(scaled);
    if (lower !== scaled) return ((lower % 2 === 0 ? lower : lower + 1) / 10 ** digits).toFixed(digits);
  }
  return value.toFixed(digits);
}

function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US");
}

function percent(part, whole) {
  return whole > 0 ? `${decimals((100 * part) / whole, 1)} %` : "–";
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// Precision, recall and F1 of counts; null where there is nothing to divide by.
function rates(tp, fp, fn) {
  return {
    precision: tp + fp > 0 ? tp / (tp + fp) : null,
    recall: tp + fn > 0 ? tp / (tp + fn) : null,
    f1: tp + fp + fn > 0 ? (2 * tp) / (2 * tp + fp + fn) : null,
  };
}
