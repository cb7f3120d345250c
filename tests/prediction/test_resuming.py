"""A prediction that was stopped goes on, alone or in several processes, and ends as one does."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from retina.errors import RunError, UserError
from retina.prediction.outputs.images import write_jpeg
from retina.runtime.detection_log import (
    UNFINISHED,
    DetectionLog,
    LoggedImage,
    no_detections,
)
from retina.structures import Detections
from tests.prediction.fixed_runtime import (  # type: ignore[import-not-found]
    TwoObjects,
    predict,
    save_image,
)
from tests.processes import run_pair  # type: ignore[import-not-found]

ALL = ("pictures", "json", "csv")


class Counting(TwoObjects):
    """Notes the widths that it sees, and ends at one of them, as if memory had run out."""

    def __init__(self, fatal: int = 0) -> None:
        self.seen: list[int] = []
        self._fatal = fatal

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        widths = [int(image.shape[2]) for image in images]
        if self._fatal in widths:
            raise RunError("out of memory")
        self.seen += widths
        return super().detect(images)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [save_image(tmp_path / f"photos/{width}.png", 20, width) for width in range(30, 37)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_run_goes_on_where_it_was_stopped(photos: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run = predict(photos, whole, save=ALL)
    out = tmp_path / "out"
    with pytest.raises(RunError, match="out of memory"):
        predict(photos, out, Counting(fatal=34), save=ALL, batch_size=2)
    assert {row["file_name"] for row in json.loads((out / "detections.json").read_text())} == {
        str(path) for path in photos[:4]
    }
    log = out / "unfinished/found_0.jsonl"
    with log.open("a") as file:
        file.write('{"item": 5, "size": [20')  # killed while it wrote
    again = Counting()
    assert predict(photos, out, again, save=ALL, batch_size=2, resume=True) == run
    assert again.seen == [34, 35, 36]
    assert files(out) == files(whole)


def test_without_resume_it_begins_anew(photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError):
        predict(photos, tmp_path / "out", Counting(fatal=34), batch_size=2)
    again = Counting()
    predict(photos, tmp_path / "out", again)
    assert len(again.seen) == 7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"score_threshold": 0.5}, "scores"),
        ({"settings": {"detector": "other"}}, "detector"),
        ({"save": ("json", "csv"), "score_threshold": 0.5}, "outputs and scores"),
    ],
)
def test_another_run_is_not_gone_on_with(
    photos: list[Path], tmp_path: Path, change: dict[str, object], told: str
) -> None:
    with pytest.raises(RunError):
        predict(photos, tmp_path / "out", Counting(fatal=34), batch_size=2)
    with pytest.raises(UserError, match=f"out/unfinished: is of a run that differs in {told}; "):
        predict(photos, tmp_path / "out", resume=True, **change)
    with pytest.raises(UserError, match="differs in inputs"):
        predict(photos[1:], tmp_path / "out", resume=True)


def test_an_image_that_could_not_be_read_is_tried_again(photos: list[Path], tmp_path: Path) -> None:
    content = photos[1].read_bytes()
    photos[1].write_bytes(b"no image")
    with pytest.raises(RunError):
        predict(photos, tmp_path / "out", Counting(fatal=34), batch_size=2)
    photos[1].write_bytes(content)
    again = Counting()
    run = predict(photos, tmp_path / "out", again, resume=True)
    assert (run.num_images, run.failures) == (7, ())
    assert again.seen == [31, 34, 35, 36]


def test_pictures_that_a_full_disk_has_cost_are_written_when_it_goes_on(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(photos, tmp_path / "whole", save=ALL)
    out = tmp_path / "out"

    def full(path: Path, picture: np.ndarray, *, quality: int = 92) -> None:
        if path.stem == "33":
            raise RunError(f"{path}: the disk is full; free some space and go on")
        write_jpeg(path, picture, quality=quality)

    monkeypatch.setattr("retina.prediction.outputs.pictures.write_jpeg", full)
    with pytest.raises(RunError, match=r"33.jpg: the disk is full"):
        predict(photos, out, save=ALL, batch_size=2)
    monkeypatch.undo()
    assert predict(photos, out, save=ALL, batch_size=2, resume=True) == whole
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), RunError),
        (MemoryError("too large"), MemoryError),
    ],
)
def test_faults_of_the_machine_are_no_failures_of_an_image(
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("retina.prediction.outputs.pictures.draw_detections", fails)
    with pytest.raises(kind):
        predict(photos, tmp_path / "out", save=ALL)


def test_an_image_that_could_not_be_written_about_is_not_done(tmp_path: Path) -> None:
    log = DetectionLog.begin(tmp_path / "log", {}, resume=False)
    nothing = no_detections()
    failed = LoggedImage(0, (20, 30), nothing, "no picture")
    log.add(failed)
    log.add(LoggedImage(1, (20, 30), nothing))
    log.add(LoggedImage(2, (20, 30), nothing, "no picture", frame=0, time=0.0, is_last=False))
    log.add(LoggedImage(2, (20, 30), nothing, frame=1, time=0.1))
    assert log.items_done() == {1}
    assert log.items_known() == {0, 1, 2}
    log.add(LoggedImage(2, (20, 30), nothing, frame=0, time=0.0, is_last=False))
    log.add(LoggedImage(2, (20, 30), nothing, frame=1, time=0.1))
    log.add(LoggedImage(0, (20, 30), nothing))
    log.add(failed)  # a worse one changes nothing
    assert log.items_done() == {0, 1, 2}
    assert [image.failure for image in log.images()] == [""] * 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has such a file")
def test_a_log_on_a_full_disk_says_so(tmp_path: Path) -> None:
    log = DetectionLog.begin(tmp_path / "log", {}, resume=False)
    (tmp_path / "log/found_0.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"found_0.jsonl: cannot be written: No space left"):
        log.add(LoggedImage(0, (20, 30), no_detections()))
    log.close()


def share(folder: str, *resume: str) -> None:
    """One of two processes; the second of them ends in the middle, unless the run goes on."""
    from retina.distributed import rank, sharing_processes
    from retina.prediction.files import PredictionOptions, predict_files
    from retina.prediction.inputs import ImageFile
    from retina.prediction.predictor import Predictor

    photos = sorted((Path(folder) / "photos").iterdir())
    options = PredictionOptions(save=ALL, batch_size=1, resume=bool(resume))
    with sharing_processes("cpu"):
        runtime = Counting(fatal=0 if resume or rank() == 0 else 35)
        run = predict_files(
            Predictor(runtime), [*map(ImageFile, photos)], Path(folder) / "out", options=options
        )
        print(f"rank {rank()} saw {runtime.seen} and gave {run}")


def test_two_processes_share_the_images_and_go_on_together(
    photos: list[Path], tmp_path: Path
) -> None:
    whole = predict(photos, tmp_path / "whole", save=ALL)
    stopped = run_pair(share, str(tmp_path))
    assert "out of memory" in stopped.stderr
    log = DetectionLog(tmp_path / "out/unfinished")
    assert log.items_done() >= {1, 3}  # of the second process, which ended at its third
    assert not log.items_done() & {5}
    done = run_pair(share, str(tmp_path), "resume")
    assert done.returncode == 0, done.stderr
    assert f"gave {whole}" in done.stdout
    assert "rank 1 saw" in done.stdout
    assert done.stdout.count("gave None") == 1
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_data_sets_of_a_finished_run_are_not_taken_for_those_of_this_one(
    photos: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(photos[:2], out, save=("json", "csv"))
    with pytest.raises(UserError, match="holds csv already"):
        predict(photos[:3], out, save=("json", "csv"), resume=True)


def test_crops_of_another_run_are_not_mixed_with(photos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(photos[:2], out, save=("json", "crops"))
    before = files(out)
    told = "out: holds crops already, and crops are not mixed; choose another folder, or remove"
    with pytest.raises(UserError, match=told):
        predict(photos[2:], out, save=("json", "crops"))
    assert files(out) == before
    stopped = tmp_path / "stopped"
    with pytest.raises(RunError):
        predict(photos, stopped, Counting(fatal=34), save=("crops",), batch_size=2)
    with pytest.raises(UserError, match="not mixed; go on with --resume, choose another"):
        predict(photos, stopped, save=("crops",), batch_size=2)
    predict(photos, stopped, save=("crops",), batch_size=2, resume=True)
    assert len(files(stopped)) == 2 * len(photos)


def test_a_folder_of_the_users_own_is_not_taken_for_a_log(
    photos: list[Path], tmp_path: Path
) -> None:
    own = save_image(tmp_path / "out" / UNFINISHED / "mine.png", 20, 30)
    with pytest.raises(UserError, match="something else is in it; choose another --output"):
        predict(photos, tmp_path / "out")
    assert own.is_file()


def test_what_another_process_has_not_written_is_missed(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if this were one of two machines, and the files of the other had not arrived."""
    monkeypatch.setattr("retina.prediction.files.world_size", lambda: 2)
    with pytest.raises(RunError, match=r"about 3 inputs, and nothing has arrived; go on with"):
        predict(photos, tmp_path / "out")
    monkeypatch.undo()
    run = predict(photos, tmp_path / "out", resume=True)
    assert run.num_images == len(photos)
