"""Text for people: counts with their nouns, and characters that an output can write."""

from __future__ import annotations

import codecs
import io
import unicodedata
from typing import TextIO

_STAND_INS = {
    **{"…": "...", "×": "x", "−": "-", "–": "-", "—": "-", "·": ".", "•": "*", "±": "+/-"},
    **{"≥": ">=", "≤": "<=", "≈": "~", "→": "->", "←": "<-", "√": "sqrt", "∂": "d"},
    **{"⌈": "ceil(", "⌉": ")", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"},
    **{power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}
"""What stands for a character of this project's texts where an output does not know it."""

_HANDLER = "retina.stand_in"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``.

    Args:
        number: how many.
        noun: of one of them; it may be several words.
        plural: of several, where it is not the noun with an ``s``.
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def writable(text: str, encoding: str) -> str:
    """A text with readable stand-ins for the characters that an encoding does not have."""
    return text.encode(encoding, _HANDLER).decode(encoding)


def write_any_text_to(*streams: TextIO | None) -> None:
    """Let streams write every text: with stand-ins, where their encoding lacks a character."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """The error handler of `codecs`: gives ASCII, which every encoding of a terminal has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_stand_in, lacking)), error.end


def _stand_in(character: str) -> str:
    r"""``gamma`` for γ, ``x`` for ×, ``e`` for é, ``\xff`` for a byte that is no text."""
    if character in _STAND_INS:
        return _STAND_INS[character]
    if "\udc80" <= character <= "\udcff":  # of a file name, by PEP 383
        return f"\\x{ord(character) - 0xDC00:02x}"
    name = unicodedata.name(character, "")
    if name.startswith("GREEK SMALL LETTER ") and name.count(" ") == 3:
        return "lambda" if character == "λ" else name.rpartition(" ")[2].lower()
    parts = unicodedata.normalize("NFKD", character)
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    if plain and plain.isascii():
        return plain
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(_HANDLER, _replace)
