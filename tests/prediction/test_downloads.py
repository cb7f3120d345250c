"""Images from the web, from a server of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from retina.datasets.images import decode_image
from retina.errors import UnreadableImageError, UserError
from retina.prediction import downloads
from retina.prediction.downloads import ImageUrl, fetch
from retina.prediction.inputs import free_stems
from retina.prediction.sources import SourceOptions, find_images
from tests.prediction.fixed_runtime import predict, save_image  # type: ignore[import-not-found]


class Server(BaseHTTPRequestHandler):
    """Answers an image, a text, too much, nothing for long, or another place to look."""

    image = b""
    is_over = threading.Event()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/silent.png":
            self.is_over.wait(5)
        if path == "/dripping_head.png":
            self.drip(b"HTTP/1.1 200 OK\r\nServer: " + b"x" * 1000)
            return
        places = {"/moved.png": "/a%20photo.png", "/file.png": "file:///etc/passwd"}
        self.send_response(302 if path in places else 404 if path == "/gone.png" else 200)
        if path in places:
            self.send_header("Location", places[path])
        self.end_headers()
        if path == "/a%20photo.png":
            self.wfile.write(self.image)
        elif path == "/page.png":
            self.wfile.write(b"<html>no image</html>")
        elif path == "/large.png":
            self.wfile.write(b"x" * 200_000)
        elif path == "/dripping.png":
            self.drip(b"x" * 1000)
        elif path == "/%E7%8C%AB%20a.png":
            self.wfile.write(self.image)

    def drip(self, content: bytes) -> None:
        with suppress(OSError):  # nobody listens any more
            for byte in content:
                self.wfile.write(bytes([byte]))
                if self.is_over.wait(0.02):
                    return

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = save_image(tmp_path_factory.mktemp("served") / "a.png", 20, 30)
    Server.image = path.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        Server.is_over.set()
        listening.shutdown()
        thread.join()


def test_nothing_is_fetched_unless_it_is_allowed(server: str) -> None:
    with pytest.raises(UserError, match="nothing is fetched from the web without --allow-urls"):
        find_images([f"{server}/a%20photo.png"])


def test_an_image_is_predicted_on_as_a_file_is(server: str, tmp_path: Path) -> None:
    lines = tmp_path / "files.txt"
    lines.write_text(f"{server}/a%20photo.png?size=full\n{server}/moved.png\n")
    found = find_images([f"@{lines}"], SourceOptions(allow_urls=True))
    assert found.inputs[1] == ImageUrl(f"{server}/moved.png")
    run = predict(found.inputs, tmp_path / "out", save=("pictures", "yolo"))
    assert (run.num_images, run.num_detections, run.failures) == (2, 4, ())
    assert (tmp_path / "out/a photo.jpg").is_file()
    names = sorted(path.name for path in (tmp_path / "out/yolo/images/train").iterdir())
    assert names == ["a photo.jpg", "moved.jpg"]
    assert decode_image(tmp_path / "out/yolo/images/train/moved.jpg").shape == (20, 30, 3)


def test_names_of_any_length_and_script_have_their_files(server: str, tmp_path: Path) -> None:
    url = f"{server}/moved.png?{'x' * 300}"
    long = [f"{server}/{letter * 120}.png" for letter in ("\u732b", "a")]
    assert [len(stem.encode()) for stem in free_stems([*map(ImageUrl, long)])] == [234, 120]
    run = predict([ImageUrl(url), *map(ImageUrl, long)], tmp_path / "out", save=("yolo", "json"))
    assert (run.num_images, len(run.failures)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("page.png", "is no image"),
        ("gone.png", "cannot be fetched: HTTP Error 404"),
        ("file.png", "cannot be fetched: .*file"),
        ("large.png", "cannot be fetched: it is larger than 0 MB"),
        ("silent.png", "cannot be fetched: .*timed out"),
    ],
)
def test_what_is_no_image_is_one_clear_failure(
    server: str, name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MOST_BYTES", 100_000)
    monkeypatch.setattr(downloads, "SILENCE_SECONDS", 0.3)
    (shot,) = ImageUrl(f"{server}/{name}").shots()
    with pytest.raises(UnreadableImageError, match=rf"^{server}/{name}: {told}"):
        shot.read()


def test_a_server_that_is_not_there_is_a_failure_too() -> None:
    told = "cannot be fetched: Connection refused; check the address and the network$"
    with pytest.raises(UnreadableImageError, match=told):
        fetch("http://127.0.0.1:9/a.png")
    told = "cannot be fetched: Invalid IPv6 URL; correct the address$"
    with pytest.raises(UnreadableImageError, match=told):
        fetch("http://[broken/a.png")


def test_what_is_no_url_is_one_failure_and_the_others_go_on(server: str, tmp_path: Path) -> None:
    given = ["http://[bad", f"{server}/moved.png", f"{server}/\u732b a.png"]
    found = find_images(given, SourceOptions(allow_urls=True))
    run = predict(found.inputs, tmp_path / "out")
    assert run.num_images == 2
    assert run.failures == (
        "http://[bad: cannot be fetched: Invalid IPv6 URL; correct the address",
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"detections.json", "moved.jpg", "\u732b a.jpg"}


@pytest.mark.parametrize("name", ["dripping.png", "dripping_head.png"])
def test_an_answer_that_drips_is_not_waited_for(
    server: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MOST_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(UnreadableImageError, match=r"it takes longer than 0\.3 seconds"):
        fetch(f"{server}/{name}")
    assert time.monotonic() - start < 5
