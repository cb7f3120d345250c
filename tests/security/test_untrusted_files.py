"""Files from someone else: refused with one message and exit code 2, and nothing in them runs."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save

from retina.artifact import load_artifact, make_artifact
from retina.configuration import ConfigError, parse_yaml
from retina.datasets.image_files import MAX_PIXELS
from retina.datasets.images import decode_image, read_header
from retina.datasets.loading import collate
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.structures import Categories, Sample, Targets
from tests.conftest import Done, Invoke  # type: ignore[import-not-found]


def refusal(done: Done, code: int = 2) -> str:
    assert done.code == code, (done.out, done.err)
    assert done.err.count("error:") == 1
    assert "Traceback" not in done.err
    return str(done.err)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that exists as soon as a payload has run."""
    return tmp_path / "executed"


class Payload:
    """Its pickle runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self._mark}",)


def plain_pickle(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def torch_archive(mark: Path) -> bytes:
    content = io.BytesIO()
    torch.save({"model": {"weight": torch.zeros(2)}, "extra": Payload(mark)}, content)
    return content.getvalue()


def legacy_archive(mark: Path) -> bytes:
    content = io.BytesIO()
    torch.save([Payload(mark)], content, _use_new_zipfile_serialization=False)
    return content.getvalue()


def whole_state(mark: Path) -> bytes:
    from retina.training.checkpoint import TrainingState

    content = io.BytesIO()
    fields: dict[str, Any] = {name: Payload(mark) for name in TrainingState.__slots__}
    torch.save(fields, content)
    return content.getvalue()


MALICIOUS = [plain_pickle, torch_archive, legacy_archive, whole_state]


@pytest.mark.parametrize("make", MALICIOUS)
def test_the_payload_would_run(make: Callable[[Path], bytes], mark: Path) -> None:
    """Or the tests below would prove nothing."""
    content = make(mark)
    if make is plain_pickle:
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("make", MALICIOUS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_every_command_that_takes_a_detector_refuses_a_pickle(
    invoke: Invoke,
    make: Callable[[Path], bytes],
    suffix: str,
    mark: Path,
    tmp_path: Path,
    tiny_config: Path,
    synthetic_data: Path,
) -> None:
    path, output = tmp_path / f"detector{suffix}", tmp_path / "out"
    path.write_bytes(make(mark))
    images = synthetic_data / "validation" / "images"
    truth = synthetic_data / "validation" / "annotations.json"
    data = ["--images", images, "--annotations", truth]
    commands: list[list[str | Path]] = [
        ["predict", path, images, "--output", output],
        ["evaluate", path, *data],
        ["import", "torchvision", path, "--output", tmp_path / "d.safetensors"],
        ["train", tiny_config, f"output_dir={output}", f"model.initialize_from={path}"],
        ["train", tiny_config, f"output_dir={output}", f"model.backbone.weights={path}"],
        ["data", "suspects", path, *data, "--output", output],
        ["loss", "anatomy", path, *data],
        ["debug", "replay", path],
    ]
    for command in commands:
        assert "detector" in refusal(invoke(*command)), command
    assert not mark.exists()


@pytest.mark.parametrize("make", MALICIOUS)
def test_resume_refuses_a_pickle(
    invoke: Invoke, make: Callable[[Path], bytes], mark: Path, tmp_path: Path, tiny_config: Path
) -> None:
    run = tmp_path / "run"
    terms = [f"output_dir={run}", "training.epochs=1", "training.max_steps=1"]
    assert invoke("train", tiny_config, *terms).code == 0
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(make(mark))
    message = refusal(invoke("train", run / "config.yaml", "--resume"))
    assert "last.pt" in message
    assert not mark.exists()


def test_a_poisoned_download_cache_is_not_unpickled(
    monkeypatch: pytest.MonkeyPatch, mark: Path, tmp_path: Path
) -> None:
    from retina.modeling.pretrained import pretrained_state_dict

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = torch.hub.get_dir()
    cached = Path(name) / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(torch_archive(mark))
    with pytest.raises(UserError, match="IMAGENET1K_V1"):
        pretrained_state_dict("resnet18", "IMAGENET1K_V1")
    assert not mark.exists()


def deflated(content: bytes) -> bytes:
    """The same archive with compressed records."""
    swelling = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(swelling, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for record in source.namelist():
            file.writestr(record, source.read(record))
    return swelling.getvalue()


def with_a_changed_byte(content: bytes) -> bytes:
    """A byte of the largest record is another one, which only its checksum can tell."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        largest = max(file.infolist(), key=lambda record: record.file_size)
        inside = content.index(file.read(largest)) + largest.file_size // 2
    return content[:inside] + bytes([content[inside] ^ 1]) + content[inside + 1 :]


def with_two_directories(content: bytes) -> bytes:
    """Compressed by the list of records that torch reads, stored by the one that Python reads."""
    content = deflated(content)
    end = content.rindex(b"PK\5\6")
    size, start = struct.unpack("<II", content[end + 12 : end + 20])
    other = bytearray(content[start : start + size])
    at = 0
    while at < size:
        name, extra, comment = struct.unpack("<HHH", other[at + 28 : at + 34])
        other[at + 10 : at + 12] = b"\0\0"
        at += 46 + name + extra + comment
    return content[:end] + bytes(other) + content[end:]


def read_weights(path: Path) -> object:
    from retina.modeling.loading import read_state_dict

    return read_state_dict(path)


def read_replay(path: Path) -> object:
    from retina.instruments.replay.file import load_replay

    return load_replay(path)


def read_state(path: Path) -> object:
    from retina.training.checkpoint import load_state

    return load_state(path)


READERS = [read_weights, read_replay, read_state]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (deflated, "is compressed"),
        (with_two_directories, "its list of records is not where it says"),
        (with_a_changed_byte, r"is damaged \(its CRC-32 differs\)"),
    ],
)
def test_an_archive_that_swells_or_is_damaged_is_refused(
    read: Callable[[Path], object], change: Callable[[bytes], bytes], words: str, tmp_path: Path
) -> None:
    plain = io.BytesIO()
    torch.save(
        {"a": torch.arange(512) if change is with_a_changed_byte else torch.zeros(1 << 22)}, plain
    )
    path = tmp_path / "evil.pt"
    path.write_bytes(change(plain.getvalue()))
    assert path.stat().st_size < 100_000  # of 16 MB
    with pytest.raises(UserError, match=rf"evil\.pt: .* {words}"):
        read(path)


REPLAYED = """
dataset: {{train: {{images: images, annotations: a.json}}}}
model:
  backbone: {{kind: resnet, name: resnet18, weights: null}}
  pyramid: {{channels: 16}}
  head: {head}
output_dir: run
"""


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("{num_convs: 1000000000}", "model.head.num_convs"),
        ("{num_convs: 60, channels: 16000}", "its weights do not fit its config"),
    ],
)
def test_a_replay_file_that_claims_a_network_of_terabytes(
    invoke: Invoke,
    head: str,
    words: str,
    detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retina.instruments.replay.file import ReplayFile, batch_fields, save_replay

    taken: list[int] = []
    convolution = torch.nn.Conv2d.__init__

    def counting(module: torch.nn.Conv2d, *arguments: Any, **options: Any) -> None:
        convolution(module, *arguments, **options)
        if module.weight.device.type != "meta":
            taken.append(module.weight.numel())
            raise MemoryError("the network was made before it was compared with its weights")

    image = Sample(
        torch.zeros(3, 64, 64, dtype=torch.uint8),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool()),
        1,
    )
    artifact = load_artifact(detector)
    replay = ReplayFile(
        config=REPLAYED.format(head=head),
        class_names=("cat", "dog"),
        class_counts=(1, 1),
        step=1,
        rank=0,
        precision="fp32",
        lr=0.1,
        micro_batches=batch_fields([collate([image], size_divisor=32)]),
        detector=dict(artifact.state_dict),
        criterion={},
    )
    path = tmp_path / "evil.pt"
    save_replay(replay, path)
    monkeypatch.setattr(torch.nn.Conv2d, "__init__", counting)
    message = refusal(invoke("debug", "replay", path, "--device", "cpu"))
    assert "evil.pt: its " in message
    assert words in message
    assert not taken


# -- YAML ------------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:os.system ['touch {mark}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:builtins.object {{}}",
    "!custom value",
    "!!timestamp 2001-01-01",
    "!!binary aGVsbG8=",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_is_refused_in_a_file_and_in_an_override(
    invoke: Invoke, tag: str, mark: Path, tmp_path: Path, tiny_config: Path
) -> None:
    value = tag.format(mark=mark)
    path = tmp_path / "tagged.yaml"
    path.write_text(f"extends: {tiny_config}\nseed: {value}\noutput_dir: {tmp_path / 'run'}\n")
    message = refusal(invoke("train", path))
    assert "line 2" in message
    assert "is not read: a config is plain values" in message
    done = invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", f"seed={value}")
    assert "is not read: a config is plain values" in refusal(done)
    assert not mark.exists()


def bomb(levels: int) -> str:
    names = [chr(ord("a") + level) for level in range(levels)]
    lines = [f"{names[0]}: &{names[0]} [{', '.join(['x'] * 10)}]"]
    for below, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "stands for more than 100000 values"),
        (bomb(20), "stands for more than 100000 values"),
        ("a: &a [*a]", "an alias stands inside its own anchor"),
        ("a: &a {b: {c: *a}}", "an alias stands inside its own anchor"),
        ("[" * 100_000, "more than 50 deep"),
        ("{a: " * 20_000, "more than 50 deep"),
        ("- " * 60, "more than 50 deep"),
        ("x" * 300_000, "longer than 200000 characters"),
        ('a: "b\\0c"', "a NUL character"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: !!float", "not readable as YAML"),
        ("a: !!bool maybe", "not readable as YAML"),
    ],
)
def test_a_yaml_that_swells_or_nests_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_yaml(text, "evil.yaml")


def test_a_bomb_within_bounds_is_still_only_a_config_error(
    invoke: Invoke, tmp_path: Path, tiny_config: Path
) -> None:
    assert parse_yaml(bomb(4), "source")["d"][9][9][9] == ["x"] * 10
    path = tmp_path / "config.yaml"
    path.write_text(f"extends: {tiny_config}\n{bomb(4)}\n")
    assert "a: unknown key" in refusal(invoke("train", path))


def test_a_long_chain_of_extends(tmp_path: Path) -> None:
    from retina.configuration import read_tree

    for number in range(2000):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(ConfigError, match="more than 50 files extend each other"):
        read_tree(tmp_path / "0.yaml")


def test_an_endless_config_file() -> None:
    from retina.configuration import read_tree

    with pytest.raises(ConfigError, match="/dev/zero: is no file, but a pipe or a device"):
        read_tree("/dev/zero")


# -- file names ------------------------------------------------------------------------------------

OUTSIDE = ["../secret.png", "a/../../secret.png", "/etc/passwd", "C:\\secret.png", "..\\secret.png"]


@pytest.mark.parametrize("name", [*OUTSIDE, "a\0b.png", "\ud800.png", "x" * 5000, ""])
def test_a_coco_file_name_that_leaves_the_folder(
    invoke: Invoke, name: str, tmp_path: Path, synthetic_data: Path
) -> None:
    tree = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    tree["images"][0]["file_name"] = name
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(tree))
    images = synthetic_data / "train" / "images"
    for command in ("check", "stats"):
        message = refusal(invoke("data", command, "--images", images, "--annotations", path))
        assert "images[0].file_name" in message


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_voc_file_name_that_leaves_the_folder(invoke: Invoke, name: str, tmp_path: Path) -> None:
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    images.mkdir()
    annotations.mkdir()
    (annotations / "a.xml").write_text(
        f"<annotation><filename>{name}</filename><size><width>4</width><height>4</height></size>"
        "</annotation>"
    )
    data = ["--images", images, "--annotations", annotations]
    assert "does not name a file below" in refusal(invoke("data", "check", *data))
    (tmp_path / "split.txt").write_text(f"{name}\n")
    message = refusal(invoke("data", "check", *data, "--split", tmp_path / "split.txt"))
    assert "split.txt, line 1" in message


def test_a_class_name_gives_the_terminal_no_orders(
    invoke: Invoke, tmp_path: Path, synthetic_data: Path
) -> None:
    tree = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    tree["categories"][0]["name"] = "\x1b]0;owned\x07cat"
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(tree))
    images = synthetic_data / "train" / "images"
    message = refusal(invoke("data", "stats", "--images", images, "--annotations", path))
    assert "categories[0].name" in message
    assert "\x1b" not in message


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    """It is the user's own doing: data sets of links into a storage are common."""
    pixels = np.full((4, 6, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "stored.png"), pixels)
    (tmp_path / "link.png").symlink_to(tmp_path / "stored.png")
    assert np.array_equal(decode_image(tmp_path / "link.png"), pixels)


def test_a_document_type_in_xml(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
    )
    done = invoke("data", "check", "--images", tmp_path, "--annotations", tmp_path)
    assert "DOCTYPE" in refusal(done)


# -- images ----------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    _, content = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))
    data = bytearray(content.tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int, samples: int) -> bytes:
    """One strip; with five float samples a pixel it is of a kind that Pillow does not know."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 32), (259, 3, 1), (262, 3, 2)]
    tags += [(273, 4, 8), (277, 3, samples), (278, 4, height), (279, 4, 4), (339, 3, 3)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + body + b"\0" * 4


BOMBS = {
    "png": png(50_000, 50_000),
    "jpg": jpeg(50_000, 50_000),
    "ppm": b"P6 50000 50000 255\n" + b"\0" * 100,
    "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 50_000, 50_000, 0, 0, 0) + b"\x2c"
    + struct.pack("<HHHHB", 0, 0, 50_000, 50_000, 0) + b"\x02\x00;",
    "tif": tiff(50_000, 50_000, 1),
    "float.tif": tiff(50_000, 20_000, 3),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_an_image_that_claims_to_be_huge_is_refused_by_its_head(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(BOMBS[kind])
    for read in (decode_image, read_header):
        with pytest.raises(UserError, match=f"claims to hold more than {MAX_PIXELS} pixels"):
            read(path)


def test_a_bomb_in_a_data_set_and_in_a_prediction(
    invoke: Invoke, tmp_path: Path, synthetic_data: Path, detector: Path
) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMBS["png"])
    done = invoke("predict", detector, tmp_path / "bomb.png", "--output", tmp_path / "out")
    assert done.code == 1  # the other images would have been predicted on
    assert "claims to hold more than" in done.out + done.err


def test_an_image_is_never_a_program(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%id) (r) file\n"
    )
    with pytest.raises(UserError, match="is no image, or one of an unknown format"):
        decode_image(path)


def test_a_pipe_and_a_device_in_the_image_folder_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match="is no file, but a pipe or a device"):
            decode_image(tmp_path / name)


def test_two_frame_headers_in_a_jpeg(tmp_path: Path) -> None:
    """Pillow would believe the one size, and the decoder the other."""
    data = jpeg(8, 8)
    at = data.index(b"\xff\xc0")
    frame = bytearray(data[at : at + 19])
    frame[5:9] = struct.pack(">HH", 30_000, 30_000)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:at] + bytes(frame) + data[at:])
    with pytest.raises(UserError, match=r"a\.jpg"):
        decode_image(path)


# -- JSON ------------------------------------------------------------------------------------------

NUMBERS = ["1e999", "-1e999", "NaN", "Infinity", "9" * 400, "9" * 5000, "1e-999", "-0", "true"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "key", ['"id": 1', '"image_id": 1', '"area": 100', '"height": 40', '"bbox": [1', '"iscrowd": 0']
)
def test_absurd_numbers_in_annotations(
    invoke: Invoke, number: str, key: str, tmp_path: Path
) -> None:
    text = (
        '{"images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}], "annotations": '
        '[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 100, "iscrowd": '
        '0}], "categories": [{"id": 1, "name": "cat"}]}'
    )
    assert key in text
    value = key.rpartition(" ")[2].lstrip("[")
    changed = text.replace(key, key[: len(key) - len(value)] + number, 1)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    path = tmp_path / "annotations.json"
    path.write_text(changed)
    done = invoke("data", "check", "--images", tmp_path, "--annotations", path)
    assert done.code in (0, 1, 2)
    assert "Traceback" not in done.err
    if done.code == 2:
        assert "annotations.json" in refusal(done)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, '{"images": ' + "[" * 99_999])
def test_nested_json(invoke: Invoke, text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text(text)
    done = invoke("data", "check", "--images", tmp_path, "--annotations", path)
    assert "not readable as JSON" in refusal(done)


# -- safetensors -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = ModelConfig.model_validate_json(
        '{"backbone": {"kind": "resnet", "name": "resnet18"}, "pyramid": {"channels": 16},'
        '"head": {"num_convs": 0}}'
    )
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(),
        categories=Categories.from_names(["cat", "dog"]),
    )
    path = tmp_path_factory.mktemp("detectors") / "detector.safetensors"
    artifact.save(path)
    return path


def with_header(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def described(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    def inside(header: dict[str, Any]) -> None:
        about = json.loads(header["__metadata__"]["retina"])
        change(about)
        header["__metadata__"]["retina"] = json.dumps(about)

    return with_header(content, inside)


def set_first(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(header: dict[str, Any]) -> None:
        name = next(name for name in header if name != "__metadata__")
        header[name][key] = value

    return change


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a header of 2⁶³ bytes": lambda c: struct.pack("<Q", 2**63) + c[8:],
    "a header of 99 MB": lambda c: struct.pack("<Q", 99_000_000) + c[8:],
    "an empty header": lambda c: struct.pack("<Q", 0) + c[8:],
    "offsets beyond the end": lambda c: with_header(c, set_first("data_offsets", [0, 2**50])),
    "offsets that run backwards": lambda c: with_header(c, set_first("data_offsets", [64, 0])),
    "negative offsets": lambda c: with_header(c, set_first("data_offsets", [-64, 0])),
    "a shape larger than its data": lambda c: with_header(c, set_first("shape", [2**40, 2**40])),
    "a shape that overflows": lambda c: with_header(c, set_first("shape", [2**63, 2])),
    "an unknown dtype": lambda c: with_header(c, set_first("dtype", "PICKLE")),
    "a description that is no JSON": lambda c: with_header(
        c, lambda h: h["__metadata__"].update(retina="{")
    ),
    "a description that nests": lambda c: with_header(
        c, lambda h: h["__metadata__"].update(retina="[" * 100_000)
    ),
    "a description that is a list": lambda c: with_header(
        c, lambda h: h["__metadata__"].update(retina="[]")
    ),
    "a network of 10⁹ layers": lambda c: described(
        c, lambda a: a["config"]["model"]["head"].update(num_convs=10**9)
    ),
    "a network of terabytes": lambda c: described(
        c, lambda a: a["config"]["model"]["head"].update(num_convs=60, channels=16_000)
    ),
    "weights to fetch": lambda c: described(
        c, lambda a: a["config"]["model"]["backbone"].update(weights="/etc/passwd")
    ),
    "two categories of one id": lambda c: described(
        c, lambda a: a["config"]["categories"].update(dataset_ids=[1, 1])
    ),
    "names without ids": lambda c: described(
        c, lambda a: a["config"]["categories"].update(dataset_ids=[1])
    ),
    "a training that is a list": lambda c: described(c, lambda a: a.update(training=[1])),
    "a later format": lambda c: described(c, lambda a: a["config"].update(format_version=99)),
    "tensors alone": lambda c: save({"weight": torch.zeros(3)}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_detector_file_that_lies(
    invoke: Invoke, lie: str, detector: Path, tmp_path: Path
) -> None:
    path = tmp_path / "evil.safetensors"
    path.write_bytes(LIES[lie](detector.read_bytes()))
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((40, 60, 3), np.uint8))
    done = invoke("predict", path, image, "--output", tmp_path / "out", "--device", "cpu")
    assert "evil.safetensors" in refusal(done)


def test_the_detector_of_these_tests_is_whole(detector: Path) -> None:
    load_artifact(detector).build_detector()
