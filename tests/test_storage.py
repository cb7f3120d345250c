from pathlib import Path

import pytest

from retina.errors import RunError, UserError
from retina.storage import make_folder, replacing, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as aside:
        aside.write_text({}["half of the new one"])
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_a_fault_of_the_machine_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RunError, match=r"file\.txt: the disk is full"), replacing(path):
        Path("/dev/full").write_text("x" * 100_000)
    assert path.read_text() == "old"


def test_a_file_where_a_folder_belongs_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        write_text(tmp_path / "file" / "below.txt", "")


def test_files_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    import os

    before = os.umask(0o022)
    try:
        write_text(tmp_path / "file.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_may_not_be_written_to_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match="may not be written"):
        make_folder(tmp_path)
