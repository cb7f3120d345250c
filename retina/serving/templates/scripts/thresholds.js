const shownDetections = () =>
  state.answer.detections.filter((one) => one.score >= state.thresholds.get(one.category_id));

const rowOf = (category, index) => {
  const id = `class-${index}`;
  const swatch = make("span", { className: "swatch" });
  swatch.style.setProperty("--color", category.color);
  const label = make("label", { htmlFor: id, title: category.name }, swatch, category.name);
  const count = make("small", { className: "count" });
  const value = make("output");
  value.htmlFor.add(id);
  const slider = make("input", { id, type: "range", min: 0, max: 1, step: 0.01 });
  slider.addEventListener("input", () => {
    state.thresholds.set(category.id, Number(slider.value));
    update();
  });
  const row = make("div", { className: "row" }, label, make("span", {}, count, " ", value), slider);
  row.dataset.category = category.id;
  row.addEventListener("pointerenter", () => mark(category.id));
  row.addEventListener("pointerleave", () => mark(null));
  return row;
};

/** A row for every class of which something was found; the others are only named. */
const layThresholds = () => {
  const found = new Set(state.answer.detections.map((one) => one.category_id));
  const { categories } = state.model;
  byId("classes").replaceChildren(...categories.filter((one) => found.has(one.id)).map(rowOf));
  const rest = categories.filter((one) => !found.has(one.id)).map((one) => one.name);
  byId("rest-title").textContent = `${counted(rest.length, "class")} without a detection`;
  byId("rest-names").textContent = rest.join(", ");
  show("rest", rest.length > 0);
  show("common", found.size > 1);
  byId("hint").textContent = found.size > 0 ? "Each class is shown from its score on." : "";
};

const updateThresholds = (shown) => {
  for (const row of byId("classes").children) {
    const isOfRow = (one) => String(one.category_id) === row.dataset.category;
    const { id } = state.model.categories.find((one) => String(one.id) === row.dataset.category);
    const threshold = state.thresholds.get(id);
    row.querySelector(".count").textContent =
      `${shown.filter(isOfRow).length} of ${state.answer.detections.filter(isOfRow).length}`;
    row.querySelector("output").textContent = threshold.toFixed(2);
    row.querySelector("input").value = threshold;
  }
  const own = ownThresholds();
  show("reset", [...own].some(([id, value]) => state.thresholds.get(id) !== value));
  const values = new Set(state.thresholds.values());
  const [common] = values;
  byId("all-value").textContent = values.size === 1 ? common.toFixed(2) : "each its own";
  if (values.size === 1) byId("all").value = common;
};
