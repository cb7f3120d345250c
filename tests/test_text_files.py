"""Text as people's tools write it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from retina.configuration import read_tree
from retina.errors import UserError
from retina.text_files import read_beginning, read_json, read_text

TEXT = "Tür, 猫 и кошка\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le with mark", "utf-16-be mark"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_unicode_encoding_is_read(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = (
        ("\ufeff" + TEXT).encode(encoding.split()[0]) if " " in encoding else TEXT.encode(encoding)
    )
    path = tmp_path / "words.txt"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_text(path, "list") == TEXT
    assert read_beginning(path).removeprefix("\ufeff") == TEXT


def test_the_beginning_of_a_file_is_looked_at_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("猫" * 100)
    assert read_beginning(path, 10) == "猫猫猫"
    path.write_bytes(gzip.compress(b"a" * 10_000_000))
    assert read_beginning(path, 100) == "a" * 100
    path.write_bytes(b"\x1f\x8b no gzip")
    assert read_beginning(path) == read_beginning(tmp_path) == read_beginning(path / "gone") == ""


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_seen_by_its_zeros(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"a": "猫"}'.encode(encoding))
    assert read_json(path, "annotation file") == {"a": "猫"}


@pytest.mark.parametrize("encoding", ["gbk", "iso-8859-1", "utf-16", "shift_jis"])
def test_xml_says_its_encoding_itself(tmp_path: Path, encoding: str) -> None:
    word = "Tür" if "iso" in encoding else "猫"
    text = f'<?xml version="1.0" encoding="{encoding}"?><a>{word}</a>'
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode(encoding))
    assert read_text(path, "annotation file") == text


def test_several_packed_parts_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(b'{"a"') + gzip.compress(b": 1}"))
    assert read_json(path, "annotation file") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"menu\xe9", r"is no text in UTF-8 \(byte 4\); save it in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\xff", "is no list, but an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: fetch"),
        (b"PK\x03\x04\xff", "is no list, but a zip archive: unpack it"),
        (
            gzip.compress(b"a" * 1000, mtime=0)[:20],
            "is damaged or incomplete .compressed with gzip.",
        ),
        (gzip.compress(b"a" * 100, mtime=0)[:-6] + b"abcdef", "is damaged or incomplete"),
        (b'<?xml version="1.0" encoding="klingon"?>', "the encoding 'klingon', which is unknown"),
        (
            b'<?xml version="1.0" encoding="undefined"?>',
            "the encoding 'undefined', which is unknown",
        ),
        (b'<?xml version="1.0" encoding="hex"?>', "the encoding 'hex', which is unknown"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_text(path, "list")
    assert str(caught.value).startswith(f"{path}: ")


def test_a_small_file_may_not_swell(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json"
    path.write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(UserError, match="holds more than 99999 bytes, unpacked"):
        read_text(path, "list", max_bytes=99_999)
    assert len(read_text(path, "list", max_bytes=100_000)) == 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [1, 2,]}', r"a comma before the closing '\]' at line 1, column \d+: remove it"),
        ('{\n"a": 1,\n}', r"a comma before the closing '\}' at line [23]"),
        ('{"a": 1}\n{"a": 2}\n', r"several JSON values.*JSON lines; the second at line 2"),
        ("{'a': 1}", "a text in single quotes at line 1, column 2: write it with json.dump"),
        ('{"a": 1, // one\n"b": 2}', "a comment at line 1"),
        ("<html></html>", "is XML or HTML, not JSON"),
        ('{"a": [1, 2', r"at line 1, column 12 \(character 11 of 11\); the file may be incomplete"),
        ("  \n", "the annotation file is empty"),
    ],
)
def test_what_is_no_json_is_named_as_what_it_is(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_json(path, "annotation file")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_may_be_in_any_of_them(tmp_path: Path, encoding: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes("# ü\nseed: 3\n".encode(encoding))
    assert read_tree(config) == {"seed": 3}
