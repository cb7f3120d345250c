"""Videos: frames with their times in, rows and a video of the same pace out."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from retina.datasets import find_source
from retina.errors import UserError
from retina.prediction.inputs import ImageFile
from retina.prediction.outputs.images import write_jpeg
from retina.prediction.sources import SourceOptions, find_images
from retina.prediction.video import Video, VideoWriter
from tests.prediction.fixed_runtime import predict, save_image  # type: ignore[import-not-found]

TIMES = [0.0, 0.04, 0.12, 0.5, 0.54, 1.5, 1.54]
"""A pace of its own: seconds at which the frames are shown."""


def grey_of(number: int) -> int:
    return 20 + 30 * number


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven grey frames of 50 × 64, each brighter than the one before, from second 2 on."""
    path = tmp_path_factory.mktemp("clips") / "street.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 50, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(TIMES):
            pixels = np.full((50, 64, 3), grey_of(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time) + 2000, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [
            (frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]


def test_frames_have_their_numbers_and_times(clip: Path) -> None:
    shots = list(Video(clip, stride=3).shots())
    assert [shot.frame for shot in shots] == [0, 3, 6]
    assert [shot.time for shot in shots] == pytest.approx([0.0, 0.5, 1.54], abs=1e-3)
    assert [shot.is_last for shot in shots] == [False, False, True]
    for shot in shots:
        image = shot.read()
        assert image.shape == (50, 64, 3)
        assert abs(float(image.mean()) - grey_of(shot.frame or 0)) < 4


def test_a_video_gives_rows_of_every_frame_and_a_video_of_its_pace(
    clip: Path, tmp_path: Path
) -> None:
    photo = save_image(tmp_path / "photo.png", 20, 30)
    run = predict([photo, Video(clip)], tmp_path / "out", save=("pictures", "json", "voc"))
    assert (run.num_images, run.num_detections, run.failures) == (8, 16, ())
    rows = json.loads((tmp_path / "out/detections.json").read_text())[::2]
    assert [row["image_id"] for row in rows] == [*range(1, 9)]
    assert "frame" not in rows[0]
    assert [row["frame"] for row in rows[1:]] == [*range(7)]
    assert [row["time"] for row in rows[1:]] == pytest.approx(TIMES, abs=1e-3)
    assert {row["file_name"] for row in rows[1:]} == {str(clip)}
    written = frames_of(tmp_path / "out/street.mp4")
    assert [time for time, _ in written] == pytest.approx(TIMES, abs=1e-3)
    assert {picture.shape for _, picture in written} == {(50, 64, 3)}
    assert np.abs(written[5][1].astype(int) - grey_of(5)).max() > 30  # what is drawn
    source = find_source(tmp_path / "out/voc").whole
    assert source is not None
    names = sorted(path.name for path in (tmp_path / "out/voc/JPEGImages").iterdir())
    assert names == ["photo.png", *(f"street_{number:06d}.jpg" for number in range(7))]
    dataset = source.build()
    assert dataset.report.num_boxes == 16
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("detections.json", "photo.jpg", "street.mp4", "voc")
    ]


def test_a_video_that_breaks_off_keeps_what_was_seen(clip: Path, tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.mkv", tmp_path / "empty.mp4"
    with av.open(str(clip)) as given, av.open(str(broken), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                taken.mux(packet)
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) * 7 // 10])
    empty.write_bytes(b"")
    run = predict([Video(empty), Video(broken)], tmp_path / "out")
    assert run.failures == (
        f"{empty}: the video cannot be read on: Invalid data found when processing input; "
        "copy it again",
        f"{broken}: the video breaks off after 2.5 of 3.6 seconds; copy it again",
    )
    assert 0 < run.num_images < 7
    assert len(frames_of(tmp_path / "out/broken.mp4")) == run.num_images
    assert not (tmp_path / "out/empty.mp4").exists()


def save_clip(
    path: Path, times: Sequence[float], *, sound_seconds: int = 0, **options: str
) -> Path:
    """Noise, so that every frame has about the same number of bytes."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("flv" if path.suffix == ".flv" else "mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 50, "yuv420p"
        sound = None
        if sound_seconds:
            sound = container.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=8000)
            sound.layout = "mono"
        for time in times:
            pixels = noise.integers(0, 256, (50, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(10 * time), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for second in range(sound_seconds):
                silence = np.zeros((1, 8000), np.int16)
                part = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
                part.rate, part.pts, part.time_base = 8000, 8000 * second, Fraction(1, 8000)
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


EVEN = [number / 10 for number in range(40)]


@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
def test_a_file_that_is_cut_is_told_and_what_was_seen_is_kept(
    tmp_path: Path, name: str, stride: int
) -> None:
    cut = save_clip(tmp_path / name, EVEN, movflags="faststart")
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    run = predict([Video(cut, stride)], tmp_path / "out", save=("json",))
    assert 8 // stride < run.num_images <= 1 + 25 // stride
    (failure,) = run.failures
    assert re.fullmatch(
        rf"{cut}: the video breaks off after [12]\.\d of 4\.0 seconds; copy it again", failure
    )


@pytest.mark.parametrize(
    ("name", "times", "sound_seconds"),
    [
        *((name, EVEN, 0) for name in ("a.mkv", "a.avi", "a.mp4", "a.flv", "a.mov")),
        ("sound.mkv", EVEN, 9),
        ("sound.mp4", EVEN, 9),
        ("sound.avi", EVEN, 9),
        ("late.mkv", [time + 60 for time in EVEN], 0),
        ("late.mp4", [time + 60 for time in EVEN], 0),
        ("slides.mkv", [0, 5, 7, 30], 0),
        ("slides.mp4", [0, 5, 7, 30], 0),
        ("still.mp4", [0], 9),
        ("still.mkv", [0], 9),
    ],
)
def test_no_video_that_is_whole_is_accused(
    tmp_path: Path, name: str, times: Sequence[float], sound_seconds: int
) -> None:
    whole = save_clip(tmp_path / name, times, sound_seconds=sound_seconds)
    for stride in (1, 7):
        shots = [*Video(whole, stride).shots()]
        assert [shot.frame for shot in shots] == [*range(0, len(times), stride)]
        assert shots[-1].read().shape == (50, 64, 3)


def test_a_file_with_sound_alone_is_told_what_to_do_about(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        sound.layout = "mono"
        silence = np.zeros((1, 8000), np.int16)
        part = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        part.rate, part.time_base = 8000, Fraction(1, 8000)
        container.mux(sound.encode(part))
    run = predict([Video(tmp_path / "sound.mkv")], tmp_path / "out", save=("json",))
    (failure,) = run.failures
    assert failure.endswith("sound.mkv: holds no video, only sound or text; take it out")


def test_a_frame_that_cannot_be_written_is_left_out_of_data_sets(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_once(path: Path, picture: np.ndarray, *, quality: int) -> None:
        if path.name.endswith("_000003.jpg"):
            raise UserError(f"{path}: may not be written")
        write_jpeg(path, picture, quality=quality)

    monkeypatch.setattr("retina.prediction.outputs.images.write_jpeg", fails_once)
    run = predict([Video(clip)], tmp_path / "out", save=("yolo", "csv", "json"))
    assert run.num_images == 7
    told, counted = run.failures
    assert "street_000003.jpg: may not be written" in told
    assert counted == "yolo and csv: 1 image left out, of which there is no file"
    assert len(json.loads((tmp_path / "out/detections.json").read_text())) == 14
    for name in ("yolo/images/train", "csv/images"):
        assert len([*(tmp_path / "out" / name).iterdir()]) == 6
    assert not (tmp_path / "out/unfinished").exists()


def test_data_sets_without_any_image_are_written(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    saved = ("yolo", "voc", "csv", "coco", "json")
    run = predict([Video(tmp_path / "empty.mp4")], tmp_path / "out", save=saved)
    assert (run.num_images, len(run.failures)) == (0, 1)


def test_the_frames_of_a_video_with_a_long_name_have_their_files(
    clip: Path, tmp_path: Path
) -> None:
    (long := tmp_path / f"{'x' * 245}.mp4").write_bytes(clip.read_bytes())
    run = predict([Video(long)], tmp_path / "out", save=("pictures", "yolo", "crops"))
    assert (run.num_images, run.failures) == (7, ())
    assert len([*(tmp_path / "out/yolo/images/train").iterdir()]) == 7


@pytest.mark.parametrize("place", ["out", "photos/out", "far/away/out"])
def test_frames_have_their_own_names_in_data_sets_wherever_these_are_written(
    clip: Path, tmp_path: Path, place: str
) -> None:
    names = ("photo.png", "deep/b.png", "street_000000.jpg")
    photos = [save_image(tmp_path / "photos" / name, 20, 30) for name in names]
    out = tmp_path / place
    run = predict([*photos, Video(clip, 3)], out, save=("csv", "coco", "voc", "yolo"))
    assert (run.num_images, run.failures) == (6, ())
    frames = ["street_000000_2.jpg", "street_000003.jpg", "street_000006.jpg"]
    rows = csv.DictReader((out / "csv/annotations.csv").open())
    assert list(dict.fromkeys(row["filename"] for row in rows)) == [*names, *frames]
    coco = json.loads((out / "coco/annotations.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [*names, *frames]
    flat = {Path(name).name for name in (*names, *frames)}
    for folder in ("voc/JPEGImages", "yolo/images/train"):
        assert {path.name for path in (out / folder).iterdir()} == flat


def test_a_phone_held_upright_is_seen_upright(tmp_path: Path) -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = 255
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    (shot,) = Video(tmp_path / "turned.mp4").shots()
    image = shot.read()
    assert image.shape == (64, 48, 3)
    assert image[36:, :20].mean() > 230  # the upper left corner turned anticlockwise
    assert image[:28].mean() < 25


def test_sides_that_no_encoder_takes_and_frames_of_other_sizes_are_fitted(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "odd.mp4")
    writer.add(np.zeros((51, 65, 3), np.uint8), 0.0)
    writer.add(np.full((25, 33, 3), 200, np.uint8), 0.1)
    writer.finish()
    assert [picture.shape for _, picture in frames_of(tmp_path / "odd.mp4")] == [(50, 64, 3)] * 2


def test_what_breaks_off_leaves_no_half_of_a_video(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "half.mp4")
    writer.add(np.zeros((50, 64, 3), np.uint8), 0.0)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_videos_are_found_by_their_suffix(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save_image(tmp_path / "photo.png", 20, 30)
    found = find_images([str(clip), str(photo)], SourceOptions(stride=5))
    assert found.inputs == (Video(clip, 5), ImageFile(photo))
    assert found.ids == ()
    with pytest.raises(UserError, match=r"has no image .*; videos are named one by one"):
        find_images([str(clip.parent)])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'retina-detector\[video\]'"):
        find_images([str(clip)])
    assert cv2.imread(str(photo)) is not None


def test_a_video_is_not_written_over_itself(clip: Path, tmp_path: Path) -> None:
    own = tmp_path / "clips" / "street.mp4"
    own.parent.mkdir()
    own.write_bytes(clip.read_bytes())
    with pytest.raises(UserError, match=r"clips: what is written would replace what is read"):
        predict([Video(own)], own.parent)
    assert own.read_bytes() == clip.read_bytes()
