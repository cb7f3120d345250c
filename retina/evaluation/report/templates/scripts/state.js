// The operating point: a score and an IoU. Whatever depends on it registers a function here.

const state = { stop: startingStop(), iou: IOUS[0] };
const followers = [];
let isScheduled = false;

// The stop at or below the suggested score, so that all that it lets count still does.
function startingStop() {
  const score = content.suggested_score;
  return score === null ? 50 : Math.min(NUM_STOPS - 1, Math.max(0, Math.floor(score * 100 + 1e-9)));
}

// The function is called now, and again whenever the point moves.
function follow(update) {
  followers.push(update);
  update();
}

// Everything moves in one frame, however many events a drag sends.
function moveTo(change) {
  Object.assign(state, change);
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    for (const update of followers) update();
  });
}

const scoreText = () => decimals(state.stop / 100, 2);
const pointText = () => `score ≥ ${scoreText()}, IoU ${state.iou}`;
