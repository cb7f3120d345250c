const CROWDED = 40; // more boxes than this show their names only under the pointer
const NARROW = 76; // pixels of the screen; a narrower box shows only its score

const colorOf = (id) => state.model.categories.find((one) => one.id === id).color;

/** Show a file as the browser reads it, or, where it cannot, as the service does. */
const showPicture = async (file) => {
  const picture = byId("picture");
  const load = (blob) => {
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(blob);
    return picture.decode();
  };
  try {
    await load(file);
  } catch {
    const plain = await detect(file, "output=jpeg&score_threshold=1");
    await load(await plain.blob());
  }
};

const detect = (file, query) => {
  const body = new FormData();
  body.append("file", file, "picture");
  return ask(`/v1/detect?${query}`, { method: "POST", body });
};

/** Make the picture as large as there is room for; a small one at most four times its size. */
const fitPicture = () => {
  const { width, height } = state.answer.size;
  const style = getComputedStyle(byId("stage"));
  const room = byId("stage").clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const scale = Math.min(4, room / width, Math.max(240, innerHeight * 0.74) / height);
  const picture = byId("picture");
  picture.style.width = `${Math.max(1, Math.round(width * scale))}px`;
  picture.style.height = `${Math.max(1, Math.round(height * scale))}px`;
};

const boxOf = (detection) => {
  const { width, height } = state.answer.size;
  const [x, y, w, h] = detection.bbox;
  const name = make("span", {}, make("b", { textContent: `${detection.category_name} ` }), detection.score.toFixed(2));
  const box = make("div", { className: "box" }, name);
  if ((w / width) * byId("frame").clientWidth < NARROW) box.classList.add("narrow");
  if (y / height < 0.06) box.classList.add("inside");
  if (x / width > 0.7) box.classList.add("leftward");
  const places = { left: x / width, top: y / height, width: w / width, height: h / height };
  for (const [side, share] of Object.entries(places)) box.style[side] = `${share * 100}%`;
  const color = colorOf(detection.category_id);
  box.style.setProperty("--color", color);
  box.style.setProperty("--on-color", textOn(color));
  box.dataset.category = detection.category_id;
  return box;
};

const drawBoxes = (shown) => {
  const boxes = byId("boxes");
  boxes.replaceChildren(...shown.toReversed().map(boxOf)); // the best on top
  boxes.classList.toggle("crowded", shown.length > CROWDED);
};

const mark = (id) => {
  for (const box of byId("boxes").children) box.classList.toggle("marked", box.dataset.category === String(id));
};
