const update = () => {
  const shown = shownDetections();
  const { detections, size } = state.answer;
  drawBoxes(shown);
  updateThresholds(shown);
  byId("text").textContent = resultText();
  const found = detections.length === 0 ? "Nothing found" : `${shown.length} of ${counted(detections.length, "detection")} shown`;
  tell(`${found} · ${size.width} × ${size.height} pixels · ${state.answer.milliseconds} ms`);
};

const take = async (file) => {
  const turn = ++state.turn;
  complain("");
  tell("Looking …");
  byId("frame").classList.add("waiting");
  try {
    const started = performance.now();
    const answer = await (await detect(file, "score_threshold=0")).json();
    answer.milliseconds = Math.round(performance.now() - started);
    if (turn !== state.turn) return;
    await showPicture(file);
    if (turn !== state.turn) return;
    state.answer = answer;
    for (const id of ["frame", "another", "copy", "json"]) show(id);
    show("drop", false);
    fitPicture();
    layThresholds();
    update();
  } catch (error) {
    if (turn !== state.turn) return;
    if (state.answer === null) tell("");
    else update(); // what is seen is still the picture before
    complain(error.message);
    if (error.status === 401) show("key-form");
  } finally {
    if (turn === state.turn) byId("frame").classList.remove("waiting");
  }
};

const takeFirst = (files) => {
  if (files.length > 0 && state.model !== null) take(files[0]);
};

const begin = async () => {
  try {
    await loadModel();
    show("key-form", false);
  } catch (error) {
    if (error.status === 401) {
      show("key-form");
      byId("key-problem").textContent = state.key === "" ? "" : "That is not it.";
      byId("key").focus();
    } else {
      show("main");
      complain(error.message);
    }
  }
  document.documentElement.dataset.ready = "yes";
};

byId("file").addEventListener("change", (event) => {
  takeFirst(event.target.files);
  event.target.value = ""; // so that the same file may be chosen again
});
byId("another").addEventListener("click", () => byId("file").click());
byId("copy").addEventListener("click", copyResult);
byId("reset").addEventListener("click", () => {
  state.thresholds = ownThresholds();
  update();
});
byId("all").addEventListener("input", (event) => {
  for (const id of state.thresholds.keys()) state.thresholds.set(id, Number(event.target.value));
  update();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = byId("key").value;
  begin();
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("stage").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) byId("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("stage").classList.remove("over");
  takeFirst(event.dataTransfer.files);
});
addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
addEventListener("resize", () => {
  if (state.answer === null) return;
  fitPicture();
  drawBoxes(shownDetections());
});
begin();
