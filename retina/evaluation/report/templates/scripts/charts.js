// Line charts as vector graphics: both axes run from 0 to 1.

const CHART = { width: 480, height: 340, left: 44, right: 16, top: 10, bottom: 40 };

const chartX = (value) => CHART.left + value * (CHART.width - CHART.left - CHART.right);
const chartY = (value) => CHART.height - CHART.bottom - value * (CHART.height - CHART.top - CHART.bottom);

function chartFrame(node, xTitle, yTitle) {
  const grid = svg("g", { class: "grid" });
  for (let tick = 0; tick <= 10; tick += 2) {
    const value = tick / 10;
    grid.append(
      svg("line", { x1: chartX(value), x2: chartX(value), y1: chartY(0), y2: chartY(1) }),
      svg("line", { x1: chartX(0), x2: chartX(1), y1: chartY(value), y2: chartY(value) }),
      svg("text", { x: chartX(value), y: chartY(0) + 16, "text-anchor": "middle" }, value.toFixed(1)),
      svg("text", { x: chartX(0) - 7, y: chartY(value) + 4, "text-anchor": "end" }, value.toFixed(1)),
    );
  }
  const middle = chartY(0.5);
  node.replaceChildren(
    grid,
    svg("text", { class: "title", x: chartX(0.5), y: CHART.height - 6, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "title", x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` }, yTitle),
  );
}

// A path through the points; a gap where a value is null.
function pathOf(values, xOf) {
  let path = "";
  let isDrawing = false;
  values.forEach((value, index) => {
    if (value === null || value === undefined) isDrawing = false;
    else {
      path += `${isDrawing ? "L" : "M"}${chartX(xOf(index)).toFixed(1)} ${chartY(value).toFixed(1)}`;
      isDrawing = true;
    }
  });
  return path;
}

function line(values, xOf, look) {
  return svg("path", { class: `line ${look}`, d: pathOf(values, xOf) });
}
