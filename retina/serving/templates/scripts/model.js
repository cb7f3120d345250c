/** What the page knows: the detector, the key, the picture's answer, and the thresholds by class. */
const state = { model: null, key: "", answer: null, thresholds: new Map(), turn: 0 };

/** Ask the service; gives the response, or throws an error that says what the service says. */
const ask = async (path, options = {}) => {
  const headers = { ...options.headers };
  if (state.key !== "") headers["X-API-Key"] = state.key;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw Object.assign(new Error(told.detail ?? `The service answers with ${response.status}.`), { status: response.status });
};

const ownThresholds = () => new Map(state.model.categories.map((one) => [one.id, one.threshold]));

const loadModel = async () => {
  state.model = await (await ask("/v1/model")).json();
  const { name, categories, formats, limits, version } = state.model;
  state.thresholds = ownThresholds();
  document.title = `${name} – Retina`;
  byId("name").textContent = name;
  byId("about").textContent = `${counted(categories.length, "class")} · Retina ${version}`;
  byId("accepted").textContent = `${formats.join(", ")}; up to ${limits.max_bytes / 1e6} MB, ${limits.max_pixels / 1e6} megapixels`;
  const key = state.key === "" ? "" : ' -H "X-API-Key: $RETINA_API_KEY"';
  byId("example").textContent = `curl -F file=@photo.jpg${key} ${location.origin}/v1/detect`;
  show("main");
};
