const resultText = () =>
  JSON.stringify({ detections: shownDetections(), size: state.answer.size }, null, 1);

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
