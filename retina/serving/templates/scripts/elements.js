const byId = (id) => document.getElementById(id);

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Black or white, whichever is read more easily on a colour. */
const textOn = (color) => {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) ** 2 > 0.05 * 1.05 ? "#000" : "#fff";
};

const show = (id, isShown = true) => { byId(id).hidden = !isShown; };

/** Say how it stands, beside the buttons. */
const tell = (text) => {
  byId("status").textContent = text;
  show("tools", text !== "" || !byId("copy").hidden);
};

const complain = (text) => {
  byId("problem").textContent = sentence(text);
  show("problem", text !== "");
};
