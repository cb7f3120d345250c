"""Which images `retina predict` is given, and under which ids."""

from __future__ import annotations

import io
import json
from pathlib import Path

import PIL.Image
import pytest

from retina.errors import UserError
from retina.prediction.sources import SourceOptions, find_images


def coco(folder: Path, ids: dict[str, int | str]) -> Path:
    """A COCO file of a test split, without annotations, beside its images."""
    (folder / "images").mkdir(parents=True)
    for name in ids:
        PIL.Image.new("RGB", (40, 30)).save(folder / "images" / name)
    records = [
        {"id": image_id, "file_name": name, "width": 40, "height": 30}
        for name, image_id in ids.items()
    ]
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": records, "categories": [{"id": 1, "name": "cat"}]}))
    return file


def test_sources_are_files_folders_and_globs_each_image_once(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "deep/c.tif", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([str(tmp_path / "b.jpg"), str(tmp_path), str(tmp_path / "**" / "*.tif")])
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == [
        "b.jpg",
        "a.PNG",
        "deep/c.tif",
    ]
    assert found.passed_over == ("deep/notes.txt",)
    with pytest.raises(UserError, match=r"missing\.jpg: no such file, folder or pattern"):
        find_images([str(tmp_path / "missing.jpg")])


def test_an_annotation_file_or_its_folder_gives_its_images_and_their_ids(tmp_path: Path) -> None:
    file = coco(tmp_path / "data", {"b.png": 907, "a.png": 12})
    for source in (file, tmp_path / "data"):
        found = find_images([str(source)])
        assert [path.name for path in found.paths] == ["b.png", "a.png"]
        assert found.ids == (907, 12)
        assert found.notes == (f"{source} is taken for COCO, with its image ids",)
    assert find_images([str(tmp_path / "data/images")]).ids == (1, 2)  # only pictures


def test_ids_that_are_texts_stay_and_the_images_may_lie_elsewhere(tmp_path: Path) -> None:
    file = coco(tmp_path / "data", {"a.png": "frame_a", "b.png": "frame_b"})
    moved = tmp_path / "other.json"
    file.rename(moved)
    found = find_images([str(moved)], SourceOptions(images=tmp_path / "data/images"))
    assert found.ids == ("frame_a", "frame_b")
    with pytest.raises(UserError, match="say where its images are with --images FOLDER"):
        find_images([str(moved)])


def test_of_splits_the_test_split_is_taken_or_the_one_that_is_named(tmp_path: Path) -> None:
    for index, split in enumerate(("train", "valid", "test")):
        coco(tmp_path / split, {f"{split}.png": 10 + index})
    found = find_images([str(tmp_path)])
    assert (found.ids, [path.name for path in found.paths]) == ((12,), ["test.png"])
    assert "; test is predicted on" in found.notes[0]
    assert find_images([str(tmp_path)], SourceOptions(split="val")).ids == (11,)
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"bare.* holds no data set that can be read"):
        find_images([str(tmp_path / "bare")], SourceOptions(split="test"))


def test_a_folder_whose_annotations_list_not_all_of_its_images_means_all(tmp_path: Path) -> None:
    coco(tmp_path, {"a.png": 55})
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "images/new.png")
    assert find_images([str(tmp_path)]).ids == (1, 2)
    assert find_images([str(tmp_path / "annotations.json")]).ids == (55,)


def test_damaged_annotations_do_not_keep_a_folder_from_being_predicted_on(tmp_path: Path) -> None:
    coco(tmp_path, {"a.png": 55}).write_text('{"images": [')
    assert [path.name for path in find_images([str(tmp_path)]).paths] == ["a.png"]


def test_ids_that_several_sources_share_are_counted_anew(tmp_path: Path) -> None:
    files = [coco(tmp_path / name, {f"{name}.png": 7}) for name in ("one", "two")]
    found = find_images([str(file) for file in files])
    assert found.ids == (1, 2)
    one, two = (tmp_path / name / "images" / f"{name}.png" for name in ("one", "two"))
    assert found.notes[-1] == (
        "the image ids count from 1: those of the sources do not tell all apart "
        f"(7 is that of {one} and {two})"
    )


def test_entries_without_an_id_are_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.mp4"):
        (tmp_path / name).touch()
    lines = tmp_path / "files.txt"
    lines.write_text("a.jpg\t5\nb.jpg\nc.jpg\t9\n")
    found = find_images([f"@{lines}"])
    assert found.ids == (1, 2, 3)
    assert found.notes == (
        f"the image ids count from 1: 1 of 3 images have none ({tmp_path / 'b.jpg'})",
    )
    lines.write_text("a.jpg\t5\nb.jpg\nb.jpg\t6\n")  # its id stands in the second line
    assert find_images([f"@{lines}"]).ids == (5, 6)
    lines.write_text("a.jpg\t5\nd.mp4\t6\n")
    assert find_images([f"@{lines}"]).notes == (
        "the image ids count from 1: a video has many images, and no id for each of them",
    )


def test_a_list_names_files_with_or_without_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b c.jpg"):
        (tmp_path / name).touch()
    lines = tmp_path / "files.txt"
    lines.write_text("b c.jpg\t907\n\n  \na.jpg\tframe_a\n")  # beside the list
    found = find_images([f"@{lines}"])
    assert [path.name for path in found.paths] == ["b c.jpg", "a.jpg"]
    assert found.ids == (907, "frame_a")
    lines.write_text("a.jpg\na.jpg\nb c.jpg\t7\n")
    found = find_images([f"@{lines}"])  # each once; an id for one of them is none for all
    assert ([path.name for path in found.paths], found.ids) == (["a.jpg", "b c.jpg"], (1, 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("a.jpg\n"))
    assert [path.name for path in find_images(["-"]).paths] == ["a.jpg"]


def test_a_list_that_names_what_is_not_there_says_the_line(tmp_path: Path) -> None:
    lines = tmp_path / "files.txt"
    lines.write_text("\ngone.jpg\n")
    with pytest.raises(UserError, match=r"files\.txt, line 2: gone\.jpg: no such file; correct"):
        find_images([f"@{lines}"])
    lines.write_text(f"{tmp_path}\n")
    with pytest.raises(UserError, match=r"line 1: .*: a folder, and a list names files"):
        find_images([f"@{lines}"])
    with pytest.raises(UserError, match=r"nowhere\.txt: no such"):
        find_images([f"@{tmp_path}/nowhere.txt"])


def test_the_standard_input_belongs_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="cannot share the standard input"):
        find_images(["-"])
