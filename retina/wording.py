"""Text for people: counts with their nouns, foreign errors, characters that an output can write."""

from __future__ import annotations

import codecs
import io
import re
import sys
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

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
"""Colours and other commands to a terminal, but line breaks and tabs."""

_HISSING = re.compile("(s|x|z|sh|(?<![^o]o)ch)$")
"""Ends of nouns whose plural has -es; the ch of an epoch is spoken as a k."""


def counted(number: int, noun: str, rest: str = "") -> str:
    """``1 image``, ``2 images``, ``3 boxes without a class``.

    Args:
        number: how many.
        noun: of one of them; of several words the last is put in the plural.
        rest: what stands behind the noun.
    """
    if number != 1:
        if re.search("[^aeiou]y$", noun):
            noun = f"{noun[:-1]}ies"
        else:
            noun += "es" if _HISSING.search(noun) else "s"
    return f"{number} {noun} {rest}".rstrip()


def program_version() -> str:
    """The version of this program, for the files that it writes."""
    # The package is there when a module of it is; an import of it would go upward.
    return str(sys.modules[__package__].__version__)


def first_line(error: BaseException) -> str:
    """What a foreign error says first, without what it does to terminals.

    Where its first line is only the heading of the next, that one is added.
    """
    lines = [line.strip() for line in _CONTROL.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


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
