"""Text for people."""

from __future__ import annotations

import io

import pytest

from retina.wording import counted, writable, write_any_text_to

ENCODINGS = ("ascii", "cp1252", "cp1251", "cp437", "gbk", "cp932", "cp949", "latin-1", "utf-8")
"""Of redirected outputs on the Windows of many countries, and of a bare Unix."""


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1_000, "1000 images")]
)
def test_a_count_and_its_noun_agree(number: int, shown: str) -> None:
    assert counted(number, "image") == shown


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("box", "boxes"),
        ("class", "classes"),
        ("category", "categories"),
        ("batch", "batches"),
        ("patch", "patches"),
        ("branch", "branches"),
        ("search", "searches"),
        ("approach", "approaches"),
        ("epoch", "epochs"),
        ("mesh", "meshes"),
        ("loss", "losses"),
        ("entry", "entries"),
        ("key", "keys"),
        ("crowd region", "crowd regions"),
        ("id", "ids"),
    ],
)
def test_plurals(noun: str, several: str) -> None:
    assert (counted(1, noun), counted(3, noun)) == (f"1 {noun}", f"3 {several}")
    assert counted(0, noun, "without x") == f"0 {several} without x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("γ = 2, α = 0.25, 640 × 480", "gamma = 2, alpha = 0.25, 640 x 480"),
        ("−0.5 … 1.5, ± 2 → 3, ≥ 4", "-0.5 ... 1.5, +/- 2 -> 3, >= 4"),
        ("up to 32², 10⁹", "up to 32^2, 10^9"),
        ("Straße, crème, λ", "Stra\\xdfe, creme, lambda"),
        ("人.jpg, \udcff.jpg, 🐱", "\\u4eba.jpg, \\xff.jpg, \\U0001f431"),
    ],
)
def test_stand_ins_can_be_read(text: str, shown: str) -> None:
    assert writable(text, "ascii") == shown


def test_what_an_encoding_has_stays() -> None:
    assert writable("γ × … 人", "gbk") == "γ × … 人"
    assert writable("γ × … 人", "utf-8") == "γ × … 人"
    assert writable("γ × é –", "cp1252") == "gamma × é –"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_writes_every_character(encoding: str) -> None:
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, errors="strict")
    write_any_text_to(stream, None)
    every = "".join(map(chr, [*range(0x3000), *range(0xDC80, 0xDD00), *range(0x1F000, 0x1FA00)]))
    stream.write(every)
    stream.flush()
    assert content.getvalue().decode(encoding)
