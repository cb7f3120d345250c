#!/usr/bin/env python3
"""Fetch COCO 2017 (19 GB of training images, 0.8 GB of validation images, 0.25 GB of annotations).

    python scripts/download_coco.py data/coco
    python scripts/download_coco.py data/coco --only val annotations

An interrupted download goes on where it stopped when the command is given again; what is there
already is skipped. Every archive is checked against the published MD5 (of another mirror's files:
``--checksums FILE``, lines as md5sum or sha256sum write them), and every file in it against the CRC
in the archive. Needs nothing but Python. train2017/, val2017/ and annotations/ come to lie in the
folder.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BASE_URL = "http://images.cocodataset.org"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """One of COCO's archives: where it lies below the base URL, and its published MD5."""

    path: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.path).name


ARCHIVES = {
    "train": Archive("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val": Archive("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"
    ),
}


class DownloadError(Exception):
    """Something that the user must know of, in one message."""


class CorruptArchiveError(DownloadError):
    """An archive is not what was published."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(arguments)
    try:
        checksums = {archive.name: archive.md5 for archive in ARCHIVES.values()}
        if options.checksums is not None:
            checksums |= read_checksums(options.checksums)
        options.folder.mkdir(parents=True, exist_ok=True)
        for key in options.only or ARCHIVES:
            fetch(
                ARCHIVES[key],
                options.folder,
                base_url=options.base_url.rstrip("/"),
                checksum=checksums[ARCHIVES[key].name],
                retries=options.retries,
                keep=options.keep_archives,
            )
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: {error}; free some space or choose another folder", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"COCO 2017 is in {options.folder}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to, such as data/coco")
    parser.add_argument("--only", nargs="+", choices=sorted(ARCHIVES), help="not all three")
    parser.add_argument("--base-url", default=BASE_URL, help="a mirror (default: %(default)s)")
    parser.add_argument("--checksums", type=Path, help="MD5 or SHA-256 of a mirror's files")
    parser.add_argument("--keep-archives", action="store_true", help="do not delete the zip files")
    parser.add_argument("--retries", type=int, default=5, help="after a lost connection")
    return parser.parse_args(arguments)


def read_checksums(path: Path) -> dict[str, str]:
    """The digests in a file as md5sum or sha256sum writes it, by file name."""
    checksums = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DownloadError(f"cannot read the checksums in {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        digest, _, name = line.strip().partition(" ")
        if len(digest) not in (32, 64) or not name.strip(" *"):
            raise DownloadError(f"{path}:{number}: expected 'DIGEST  NAME' (MD5 or SHA-256)")
        checksums[PurePosixPath(name.strip(" *")).name] = digest.lower()
    return checksums


def fetch(
    archive: Archive, folder: Path, *, base_url: str, checksum: str, retries: int, keep: bool
) -> None:
    """Have the contents of an archive in the folder, whatever of it is there already."""
    if is_done(archive, folder):
        print(f"{archive.name}: already there")
        return
    target = folder / archive.name
    for attempt in (1, 2):
        if not target.exists():
            download(f"{base_url}/{archive.path}", target, retries=retries)
        try:
            verify(target, checksum)
            counts = extract(target, folder)
            break
        except CorruptArchiveError as error:
            target.unlink()
            if attempt == 2:
                raise
            print(f"{error}; fetching it again", file=sys.stderr)
    marker(archive, folder).write_text(json.dumps(counts), encoding="utf-8")
    if not keep:
        target.unlink()


def marker(archive: Archive, folder: Path) -> Path:
    """The file that says that an archive was extracted in full, and how many files it held."""
    return folder / f".{archive.name}.done"


def is_done(archive: Archive, folder: Path) -> bool:
    """Whether an archive was extracted, and its folders still hold as many files."""
    try:
        counts = json.loads(marker(archive, folder).read_text(encoding="utf-8"))
        return bool(counts) and all(
            sum(1 for _ in (folder / name).iterdir()) >= count for name, count in counts.items()
        )
    except (OSError, ValueError):
        return False


def download(url: str, target: Path, *, retries: int) -> None:
    """Fetch a file, going on after what an earlier attempt left in ``target.part``."""
    part = target.with_name(target.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if receive(url, part):
                part.replace(target)
                return
            problem: Exception | str = "the connection closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DownloadError(f"{url}: HTTP {error.code} {error.reason}") from error
            problem = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            problem = error
        except TimeoutError as error:
            problem = error
        has_progress = part.exists() and part.stat().st_size > before
        failures = 1 if has_progress else failures + 1
        if failures > retries:
            raise DownloadError(f"{url}: {problem}; what came is kept, so try again later")
        print(f"{target.name}: {problem}; going on", file=sys.stderr)
        time.sleep(min(30.0, 0.2 * 2**failures))


def receive(url: str, part: Path) -> bool:
    """Append what is missing of a file; returns whether all of it is there."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing lies beyond what we have: it is complete, or it belongs to another file.
        if total_size(error.headers) == offset:
            return True
        part.unlink()
        return False
    with response:
        is_rest = response.status == 206
        start = offset if is_rest else 0
        length = response.headers.get("Content-Length")
        total = total_size(response.headers) if is_rest else (int(length) if length else None)
        if total is not None:
            check_space(part.parent, total - start)
        with part.open("ab" if is_rest else "wb") as file:
            copy_with_progress(response, file, part.stem, start, total)
    return total is None or part.stat().st_size == total


def total_size(headers: Message) -> int | None:
    """The size of the whole file from ``Content-Range: bytes a-b/size``."""
    size = headers.get("Content-Range", "").rpartition("/")[2]
    return int(size) if size.isdigit() else None


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder} has {free / 1e9:.1f} GB left, {needed / 1e9:.1f} GB are needed"
        )


def copy_with_progress(
    response: http.client.HTTPResponse, file: BinaryIO, name: str, start: int, total: int | None
) -> None:
    """Write the body to a file, telling how far it is: a live line, or one line a tenth."""
    done, shown = start, -1
    while chunk := response.read1(CHUNK):
        file.write(chunk)
        done += len(chunk)
        percent = 100 * done // total if total else 0
        if percent // (1 if sys.stderr.isatty() else 10) > shown:
            shown = percent // (1 if sys.stderr.isatty() else 10)
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{name}: {done / 1e6:,.0f} MB, {percent} %", end=end, file=sys.stderr)


def verify(path: Path, checksum: str) -> None:
    """Compare an archive with its MD5 or SHA-256."""
    digest = hashlib.md5() if len(checksum) == 32 else hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != checksum:
        raise CorruptArchiveError(
            f"{path.name} is corrupt: its {digest.name} is {digest.hexdigest()}, not {checksum}"
        )


def extract(path: Path, folder: Path) -> dict[str, int]:
    """Unpack an archive beside it; returns the number of files by top folder.

    The files are unpacked aside and moved into place, so that a half-extracted file is never seen.
    """
    aside = folder / f".{path.name}.extracting"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for member in members:
                check_member(member, path.name)
            check_space(folder, sum(member.file_size for member in members))
            for member in members:
                archive.extract(member, aside)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CorruptArchiveError(f"{path.name} is corrupt: {error}") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for member in members:
        destination = folder / member.filename
        destination.parent.mkdir(parents=True, exist_ok=True)
        (aside / member.filename).replace(destination)
    shutil.rmtree(aside)
    return dict(Counter(str(PurePosixPath(member.filename).parent) for member in members))


def check_member(member: zipfile.ZipInfo, archive_name: str) -> None:
    """Refuse a member that would be written outside the folder, or is a link."""
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or is_link:
        raise DownloadError(f"{archive_name} holds an unsafe path, {member.filename!r}: refused")


if __name__ == "__main__":
    sys.exit(main())
