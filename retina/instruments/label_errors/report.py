"""Suspects as one HTML page that needs nothing else: crops, sortable and filterable."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw

from retina.datasets.dataset import DetectionDataset, Image
from retina.instruments.label_errors.finding import KINDS, Corners, Suspect

CROP_HEIGHT = 220
"""In pixels; crops are shrunk or enlarged to it."""

_WIDEST_CROP = 420
_CONTEXT = 0.6
_LEAST_CONTEXT = 24.0
_JPEG_QUALITY = 82
_LABEL_COLOR = (255, 255, 255)
_SEEN_COLOR = (255, 196, 0)

_MEANINGS = {
    "missing": "an object is seen where no box is",
    "wrong_class": "the box is seen as another class",
    "badly_placed": "the object is seen beside its box",
    "spurious": "no object is seen in the box",
}
_SCORE = "score: how much it looks like this error; it ranks, and is not calibrated"


def suspects_page(
    suspects: Sequence[Suspect], dataset: DetectionDataset, *, num_found: int | None = None
) -> str:
    """The page.

    Args:
        suspects: to show, best first.
        dataset: theirs; each image is decoded once.
        num_found: how many there are in all, where not all are shown.

    Returns:
        HTML that loads nothing, with every name escaped.

    Raises:
        UserError: an image cannot be read.
    """
    cards: list[str] = [""] * len(suspects)
    by_image = sorted(range(len(suspects)), key=lambda row: suspects[row].image_index)
    index, image = -1, np.zeros((0, 0, 3), dtype=np.uint8)
    for row in by_image:
        if suspects[row].image_index != index:
            index = suspects[row].image_index
            image = dataset.load(index).image
        cards[row] = _card(suspects[row], row + 1, dataset, image)
    counts = Counter(one.kind for one in suspects)
    buttons = "".join(
        f'<button type="button" data-kind="{kind}" title="{_MEANINGS[kind]}">'
        f"{kind.replace('_', ' ')} <b>{counts[kind]}</b></button>"
        for kind in KINDS
    )
    all_found = len(suspects) if num_found is None else num_found
    more = f" (the first of {all_found})" if all_found > len(suspects) else ""
    return _PAGE.format(
        style=_STYLE,
        script=_SCRIPT,
        buttons=buttons,
        total=len(suspects),
        summary=f"{len(suspects)} suspects{more} in {len(dataset)} images",
        cards="\n".join(cards),
    )


def _card(one: Suspect, rank: int, dataset: DetectionDataset, image: Image) -> str:
    truth, names = dataset.ground_truth(), dataset.categories.names
    label_box: Corners | None = None
    facts = []
    if one.annotation is not None:
        x, y, width, height = truth.boxes_xywh[one.annotation].tolist()
        label_box = (x, y, x + width, y + height)
        facts.append(("labelled", names[int(truth.category_labels[one.annotation])]))
    seen_box = None
    if one.suggestion is not None:
        seen_box = one.suggestion.box
        facts.append(("seen as", f"{names[one.suggestion.label]} {one.suggestion.score:.2f}"))
    elif one.kind == "spurious":
        facts.append(("seen as", "nothing"))
    shows_seen = seen_box if one.kind != "wrong_class" else None  # it would hide the label's box
    picture = _crop(image, label_box, shows_seen)
    file_name = Path(dataset.file_path(one.image_index)).name
    number = "" if one.annotation is None else f"annotation {truth.annotation_ids[one.annotation]}"
    rows = "".join(f"<dt>{what}</dt><dd>{escape(value)}</dd>" for what, value in facts)
    return (
        f'<article data-kind="{one.kind}" data-score="{one.score:.6f}" data-rank="{rank}" '
        f'data-image="{escape(file_name, quote=True)}">'
        f'<div class="picture"><img loading="lazy" alt="" src="{picture}"></div>'
        f'<header><span class="kind {one.kind}">{one.kind.replace("_", " ")}</span>'
        f'<span class="score" title="{_SCORE}">{one.score:.2f}</span></header>'
        f"<dl>{rows}</dl>"
        f"<footer><span>{escape(file_name)}</span><small>{number}</small></footer></article>"
    )


def _crop(image: Image, label_box: Corners | None, seen_box: Corners | None) -> str:
    """The place with its boxes as a data URL: the label dashed in white, what is seen in yellow."""
    boxes = np.array([box for box in (label_box, seen_box) if box is not None])
    height, width = image.shape[:2]
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = np.maximum(_CONTEXT * (high - low), _LEAST_CONTEXT)
    left, top = np.maximum(low - margin, 0).astype(int).tolist()
    right, bottom = np.minimum(high + margin + 1, (width, height)).astype(int).tolist()
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = PIL.Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    scale = min(CROP_HEIGHT / part.height, _WIDEST_CROP / part.width)
    size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
    part = part.resize(size, PIL.Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(part)
    for box, color, dash in ((seen_box, _SEEN_COLOR, 0), (label_box, _LABEL_COLOR, 6)):
        if box is not None:
            x1, y1, x2, y2 = box
            inside = (
                (x1 - left) * scale,
                (y1 - top) * scale,
                (x2 - left) * scale,
                (y2 - top) * scale,
            )
            _rectangle(draw, inside, size, color, dash)
    content = io.BytesIO()
    part.save(content, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _rectangle(
    draw: ImageDraw.ImageDraw,
    box: Corners,
    size: tuple[int, int],
    color: tuple[int, int, int],
    dash: int,
) -> None:
    """A rectangle of two pixels on a dark one of four; dashed if ``dash`` is not zero."""
    x1, x2 = (round(min(max(x, 2), size[0] - 3)) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(y, 2), size[1] - 3)) for y in (box[1], box[3]))
    sides = [((x1, y1), (x2, y1)), ((x1, y2), (x2, y2)), ((x1, y1), (x1, y2)), ((x2, y1), (x2, y2))]
    for start, end in sides:
        draw.line((start, end), fill=(0, 0, 0), width=4)
    for (ax, ay), (bx, by) in sides:
        length = max(bx - ax, by - ay)
        step = dash or max(1, length)
        for at in range(0, max(1, length), 2 * step):
            stop = min(at + step, length)
            first = (ax + at, ay) if ay == by else (ax, ay + at)
            last = (ax + stop, ay) if ay == by else (ax, ay + stop)
            draw.line((first, last), fill=color, width=2)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Label suspects</title>
<style>{style}</style>
</head>
<body>
<h1>Label suspects</h1>
<p>{summary}. <span class="key label">the label</span>
<span class="key seen">what is seen</span></p>
<nav>
<button type="button" data-kind="" class="chosen">all <b>{total}</b></button>{buttons}
<label>sort by <select id="order"><option value="rank">score</option>
<option value="low">score, lowest first</option><option value="kind">kind</option>
<option value="image">image</option></select></label>
<label>image <input id="search" type="search" placeholder="part of its name"></label>
<output id="shown"></output>
</nav>
<main>
{cards}
</main>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0; }
p { margin: .3rem 0 1rem; }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .4rem .5rem;
  align-items: center; padding: .6rem 0; background: Canvas; border-bottom: 1px solid var(--line); }
nav label { margin-left: .6rem; }
output { margin-left: auto; opacity: .7; }
button { font: inherit; padding: .2rem .7rem; border: 1px solid var(--line); border-radius: 1rem;
  background: none; color: inherit; cursor: pointer; }
button.chosen { background: CanvasText; color: Canvas; }
button b { font-weight: 400; opacity: .6; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 1rem;
  margin-top: 1rem; }
article { border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
article[hidden] { display: none; }
.picture { height: 220px; display: flex; align-items: center; justify-content: center;
  background: #222; }
.picture img { max-width: 100%; max-height: 100%; }
header { display: flex; justify-content: space-between; gap: .6rem; padding: .5rem .7rem 0; }
footer { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .6rem;
  padding: .3rem .7rem .6rem; opacity: .7; overflow-wrap: anywhere; }
.kind { padding: 0 .5rem; border-radius: .3rem; color: #fff; }
.missing { background: #b3261e; } .wrong_class { background: #6a3fa0; }
.badly_placed { background: #0b6b8a; } .spurious { background: #7a5a00; }
.score { font-variant-numeric: tabular-nums; font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .3rem .7rem 0; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.key { padding: 0 .4rem; background: #222; color: #fff; }
.key.label { outline: 2px dashed #888; outline-offset: -2px; }
.key.seen { outline: 2px solid #ffc400; outline-offset: -2px; }
"""

_SCRIPT = """
const main = document.querySelector("main");
const cards = [...main.children];
const buttons = [...document.querySelectorAll("nav button")];
const order = document.getElementById("order");
const search = document.getElementById("search");
let kind = "";
const orders = {
  rank: (a, b) => a.dataset.rank - b.dataset.rank,
  low: (a, b) => b.dataset.rank - a.dataset.rank,
  kind: (a, b) => a.dataset.kind.localeCompare(b.dataset.kind) || orders.rank(a, b),
  image: (a, b) => a.dataset.image.localeCompare(b.dataset.image) || orders.rank(a, b),
};
function show() {
  const part = search.value.toLowerCase();
  let count = 0;
  for (const card of cards) {
    const data = card.dataset;
    card.hidden = (kind && data.kind !== kind) || !data.image.toLowerCase().includes(part);
    count += !card.hidden;
  }
  document.getElementById("shown").value = count + " shown";
}
for (const button of buttons) button.addEventListener("click", () => {
  kind = button.dataset.kind;
  for (const other of buttons) other.classList.toggle("chosen", other === button);
  show();
});
search.addEventListener("input", show);
order.addEventListener("change", () => main.append(...cards.sort(orders[order.value])));
show();
"""
