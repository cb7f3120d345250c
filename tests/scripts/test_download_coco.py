from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "download_coco.py"

spec = importlib.util.spec_from_file_location("download_coco", SCRIPT)
assert spec is not None
assert spec.loader is not None
download_coco = importlib.util.module_from_spec(spec)
sys.modules["download_coco"] = download_coco
spec.loader.exec_module(download_coco)


def zip_of(**files: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


@dataclass
class Mirror:
    """A web server on this machine; each request's Range header is kept."""

    files: dict[str, bytes]
    url: str = ""
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """Of a path: after how many bytes the next answers break off."""
    answers_once: dict[str, list[bytes]] = field(default_factory=dict)
    """Of a path: what is sent in place of the file, one answer each."""
    ignores_ranges: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.requests.append((path, wanted))
        if path not in self.files:
            handler.send_error(404)
            return
        body = self.files[path]
        if self.answers_once.get(path):
            body = self.answers_once[path].pop(0)
        start = 0
        if wanted and not self.ignores_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(body)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        cuts = self.cut_after.get(path)
        stop = start + cuts.pop(0) if cuts else len(body)
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(body[start:stop])
        handler.close_connection = True


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    rng = np.random.default_rng(0)
    pictures = {f"val2017/{number:012d}.jpg": rng.bytes(30_000) for number in range(4)}
    served = Mirror(
        files={
            "/zips/val2017.zip": zip_of(**pictures),
            "/annotations/annotations_trainval2017.zip": zip_of(
                **{"annotations/instances_val2017.json": b"{}"}
            ),
        }
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.respond(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def checksums_of(mirror: Mirror, folder: Path, algorithm: str = "md5") -> str:
    path = folder / "checksums.txt"
    lines = [
        f"{hashlib.new(algorithm, content).hexdigest()}  {name.rpartition('/')[2]}\n"
        for name, content in mirror.files.items()
    ]
    path.write_text("".join(lines))
    return str(path)


def run(mirror: Mirror, tmp_path: Path, *more: str) -> int:
    return download_coco.main(
        [
            *(str(tmp_path / "coco"), "--base-url", mirror.url),
            *("--checksums", checksums_of(mirror, tmp_path), "--retries", "2"),
            *more,
        ]
    )


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {f"val2017/{path.name}": path.read_bytes() for path in folder.glob("val2017/*")}


def pictures_served(mirror: Mirror) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(mirror.files["/zips/val2017.zip"])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_contents_are_unpacked_and_the_archives_deleted(mirror: Mirror, tmp_path: Path) -> None:
    assert run(mirror, tmp_path, "--only", "val", "annotations") == 0
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)
    assert (tmp_path / "coco/annotations/instances_val2017.json").read_bytes() == b"{}"
    assert list((tmp_path / "coco").rglob("*.zip")) == []
    assert list((tmp_path / "coco").rglob("*.part")) == []
    assert list((tmp_path / "coco").rglob("*.extracting")) == []


def test_a_second_run_asks_the_server_for_nothing(mirror: Mirror, tmp_path: Path) -> None:
    run(mirror, tmp_path, "--only", "val")
    mirror.requests.clear()
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert mirror.requests == []


def test_a_deleted_picture_makes_it_fetch_again(mirror: Mirror, tmp_path: Path) -> None:
    run(mirror, tmp_path, "--only", "val")
    (tmp_path / "coco/val2017/000000000002.jpg").unlink()
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_a_kept_archive_is_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    assert run(mirror, tmp_path, "--only", "val", "--keep-archives") == 0
    archive = tmp_path / "coco/val2017.zip"
    assert archive.read_bytes() == mirror.files["/zips/val2017.zip"]
    (tmp_path / "coco/val2017/000000000002.jpg").unlink()
    mirror.requests.clear()
    assert run(mirror, tmp_path, "--only", "val", "--keep-archives") == 0
    assert mirror.requests == []
    assert len(pictures_in(tmp_path / "coco")) == 4


def test_a_lost_connection_goes_on_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut_after["/zips/val2017.zip"] = [50_000, 20_000]
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert [wanted for _, wanted in mirror.requests] == [None, "bytes=50000-", "bytes=70000-"]
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_a_run_that_gave_up_is_resumed_by_the_next(mirror: Mirror, tmp_path: Path, capsys) -> None:
    mirror.cut_after["/zips/val2017.zip"] = [50_000, 0, 0, 0]
    assert run(mirror, tmp_path, "--only", "val") == 3
    assert "what came is kept, so try again later" in capsys.readouterr().err
    assert (tmp_path / "coco/val2017.zip.part").stat().st_size == 50_000
    mirror.cut_after.clear()
    mirror.requests.clear()
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert [wanted for _, wanted in mirror.requests] == ["bytes=50000-"]


def test_a_server_without_ranges_starts_over(mirror: Mirror, tmp_path: Path) -> None:
    mirror.ignores_ranges = True
    mirror.cut_after["/zips/val2017.zip"] = [50_000]
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert [wanted for _, wanted in mirror.requests] == [None, "bytes=50000-"]
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_a_complete_part_file_needs_no_more_bytes(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/val2017.zip.part").write_bytes(mirror.files["/zips/val2017.zip"])
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert len(mirror.requests) == 1
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_a_part_file_longer_than_the_archive_starts_over(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco/val2017.zip.part").write_bytes(b"x" * 500_000)
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_a_corrupt_archive_is_fetched_again(mirror: Mirror, tmp_path: Path, capsys) -> None:
    good = mirror.files["/zips/val2017.zip"]
    mirror.answers_once["/zips/val2017.zip"] = [good[:9_000] + b"?" + good[9_001:]]
    assert run(mirror, tmp_path, "--only", "val") == 0
    assert "val2017.zip is corrupt" in capsys.readouterr().err
    assert len(mirror.requests) == 2
    assert pictures_in(tmp_path / "coco") == pictures_served(mirror)


def test_an_archive_that_stays_corrupt_is_refused(mirror: Mirror, tmp_path: Path, capsys) -> None:
    good = mirror.files["/zips/val2017.zip"]
    broken = good[:9_000] + b"?" + good[9_001:]
    mirror.answers_once["/zips/val2017.zip"] = [broken, broken]
    assert run(mirror, tmp_path, "--only", "val") == 3
    expected = hashlib.md5(good).hexdigest()
    assert f"not {expected}" in capsys.readouterr().err
    assert not (tmp_path / "coco/val2017").exists()
    assert not (tmp_path / "coco/val2017.zip").exists()


def test_the_crc_within_the_archive_is_checked_too(mirror: Mirror, tmp_path: Path, capsys) -> None:
    good = mirror.files["/zips/val2017.zip"]
    mirror.files["/zips/val2017.zip"] = good[:9_000] + b"?" + good[9_001:]
    assert run(mirror, tmp_path, "--only", "val") == 3
    assert "Bad CRC-32 for file 'val2017/000000000000.jpg'" in capsys.readouterr().err
    assert not (tmp_path / "coco/val2017").exists()


def test_sha256_is_understood(mirror: Mirror, tmp_path: Path) -> None:
    sums = checksums_of(mirror, tmp_path, "sha256")
    folder = str(tmp_path / "coco")
    arguments = [folder, "--base-url", mirror.url, "--checksums", sums, "--only", "val"]
    assert download_coco.main(arguments) == 0


def test_the_published_checksums_hold_without_a_file(
    mirror: Mirror, tmp_path: Path, capsys
) -> None:
    assert (
        download_coco.main([str(tmp_path), "--base-url", mirror.url, "--only", "annotations"]) == 3
    )
    assert "not f4bbac642086de4f52a3fdda2de5fa2c" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "val2017/../../escaped.txt"])
def test_paths_that_lead_out_of_the_folder_are_refused(
    mirror: Mirror, tmp_path: Path, capsys, name: str
) -> None:
    mirror.files["/zips/val2017.zip"] = zip_of(**{"val2017/a.jpg": b"a", name: b"b"})
    assert run(mirror, tmp_path, "--only", "val") == 3
    assert f"holds an unsafe path, {name!r}: refused" in capsys.readouterr().err
    assert list(tmp_path.rglob("escaped.txt")) == []
    assert list(tmp_path.rglob("a.jpg")) == []


def test_a_missing_file_is_one_clear_message(mirror: Mirror, tmp_path: Path, capsys) -> None:
    assert run(mirror, tmp_path, "--only", "train") == 3
    assert "/zips/train2017.zip: HTTP 404" in capsys.readouterr().err


def test_no_server_is_one_clear_message(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--base-url", "http://127.0.0.1:9"]
    result = subprocess.run([*command, "--retries", "0"], capture_output=True, text=True)
    assert result.returncode == 3
    assert "http://127.0.0.1:9/zips/train2017.zip" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_checksum_file_names_its_line(mirror: Mirror, tmp_path: Path, capsys) -> None:
    path = tmp_path / "sums.txt"
    path.write_text("# comment\nnonsense\n")
    arguments = [str(tmp_path / "coco"), "--base-url", mirror.url, "--checksums", str(path)]
    assert download_coco.main(arguments) == 3
    assert f"{path}:2: expected 'DIGEST  NAME'" in capsys.readouterr().err
