"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retina.errors import RunError, UserError

_PART = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The bytes are flushed to the disk before the rename, so that after a crash the file is either
    the old one or the new one, never a part of one.

    Raises:
        UserError: the folder may not be written to.
        RunError: the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name[:40]}."  # a name has at most 255 bytes, this one's end included
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=_PART)
        os.close(handle)
    except OSError as error:
        raise as_ours(path, error) from None
    aside = Path(name)
    try:
        yield aside
        bring_to_disk(aside)
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise as_ours(path, error) from None
    finally:
        with suppress(OSError):
            aside.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace the content of a text file in one step; errors as in `replacing`.

    It is UTF-8 in any locale; bytes of file names that are no text are written as escapes.
    """
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def remove_parts(folder: Path) -> None:
    """Delete what a killed process left half-written beside the files of a folder."""
    for path in folder.rglob(f".*{_PART}"):
        with suppress(OSError):
            path.unlink()


def make_folder(path: Path) -> None:
    """Create a folder to write into and those above it, or raise what `replacing` raises."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise as_ours(path, error) from None


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, gone when the block ends.

    Raises:
        UserError: no folder can be made there, or it may not be written to.
        RunError: the disk is full.
    """
    try:
        made = tempfile.TemporaryDirectory(dir=path.parent, prefix=".making.")
    except FileNotFoundError:  # the folder is there, and holds what a system shows as files
        raise UserError(
            f"{path}: no file can be made in {path.parent}; choose another folder"
        ) from None
    except OSError as error:
        raise as_ours(path, error) from None
    with made as name:
        yield Path(name)


def bring_to_disk(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with path.open("rb+") as file:  # Windows syncs only what may be written to
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Bring a rename to the disk, where the system can: a folder cannot be opened on Windows."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def as_ours(path: Path, error: OSError) -> UserError | RunError:
    """The error that says why a path could not be written."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"{path}: may not be written ({error.strerror}); choose another folder")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return UserError(f"{path}: a file stands where a folder is needed; choose another folder")
    if error.errno == errno.EISDIR:
        return UserError(f"{path}: a folder stands where the file is needed; move it away")
    if error.errno == errno.ENAMETOOLONG:
        return UserError(f"{path}: the name is longer than one may be; choose a shorter one")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"{path}: the disk is full; free some space and go on")
    return RunError(f"{path}: cannot be written: {error}")
