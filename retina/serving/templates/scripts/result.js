/** What the service answers at these thresholds, a detection a line. */
const resultText = () => {
  const rows = shownDetections().map((one) => `\n  ${JSON.stringify(one)}`);
  return `{"detections": [${rows.join(",")}\n], "size": ${JSON.stringify(state.answer.size)}}`;
};

const copyResult = async () => {
  try {
    await navigator.clipboard.writeText(resultText());
    tell("Copied.");
  } catch { // a page that is not served from this machine or over TLS may not
    byId("json").open = true;
    getSelection().selectAllChildren(byId("text"));
    tell("Press Ctrl-C: the browser lets this page not copy by itself.");
  }
};
