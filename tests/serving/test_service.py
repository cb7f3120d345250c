"""The routes, as a client sees them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest

from tests.serving.running import (  # type: ignore[import-not-found]
    GREEN_BOX,
    RED_BOX,
    RectangleRuntime,
    Running,
    encoded,
    form,
    running,
    scene,
)

KEY = "a-key-of-this-test"
ROUTES = ("/", "/v1/model", "/health/live", "/health/ready", "/metrics", "/openapi.json")


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(RectangleRuntime()) as service:
        yield service


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(RectangleRuntime(), api_key=KEY) as service:
        yield service


RED_ROW = {
    "image_id": 1,
    "category_id": 3,
    "category_name": "red",
    "bbox": RED_BOX,
    "score": 0.75,
}
GREEN_ROW = {**RED_ROW, "category_id": 7, "category_name": "green", "bbox": GREEN_BOX, "score": 0.5}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_picture_of_each_format_is_detected_on(kind: str, served: Running) -> None:
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    data = encoded(scene(), kind, **options)
    expected = {"detections": [RED_ROW], "size": {"width": 48, "height": 32}}
    for body, content in (
        (data, f"image/{kind.lower()}"),
        (data, "application/octet-stream"),
        (data, "image/png; charset=x"),  # what it is, its bytes say
        form(data),
    ):
        answer = served.ask("/v1/detect", body, content)
        assert answer.status == 200, answer.body
        assert answer.json() == expected


def test_thresholds_of_each_class_unless_one_is_given(served: Running) -> None:
    data = encoded(scene())

    def rows(query: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = served.detect(data, query).json()["detections"]
        return found

    assert rows("") == [RED_ROW]  # green: 0.5, its threshold 0.6
    assert rows("?score_threshold=0.5") == [RED_ROW, GREEN_ROW]
    assert rows("?score_threshold=0.76") == []
    assert rows("?score_threshold=0&max_detections=1") == [RED_ROW]
    assert rows("?image_id=42") == [{**RED_ROW, "image_id": 42}]


def test_boxes_are_in_pixels_of_the_turned_picture(served: Running) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    upright = np.rot90(scene())
    data = encoded(np.ascontiguousarray(upright), exif=exif)
    answer = served.detect(data).json()
    assert answer == {"detections": [RED_ROW], "size": {"width": 48, "height": 32}}


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_comes_back_with_the_boxes_drawn(kind: str, served: Running) -> None:
    answer = served.detect(encoded(scene(480, 320)), f"?output={kind}&score_threshold=0")
    assert answer.headers["Content-Type"] == f"image/{kind}"
    picture = PIL.Image.open(io.BytesIO(answer.body))
    assert picture.format == kind.upper()
    assert picture.size == (480, 320)
    changed = np.abs(np.asarray(picture).astype(int) - scene(480, 320)).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 50
    assert columns.min() >= 5
    assert rows.max() < 60  # boxes and names, all of them in the corner where the objects are


def test_what_it_says_about_itself(served: Running) -> None:
    model = served.ask("/v1/model").json()
    assert model["name"] == "test.safetensors"
    assert [(one["id"], one["name"], one["threshold"]) for one in model["categories"]] == [
        (3, "red", 0.5),
        (7, "green", 0.6),
    ]
    assert model["limits"]["max_bytes"] == 50_000_000
    assert served.ask("/health/live").json() == {"status": "alive"}
    assert served.ask("/health/ready").json() == {"status": "ready"}
    description = served.ask("/openapi.json").json()
    assert set(description["paths"]) == {*ROUTES[1:5], "/v1/detect"}
    assert set(description["paths"]["/v1/detect"]["post"]["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff"),
        *("application/octet-stream", "multipart/form-data"),
    }


def test_metrics_count_what_was_asked(served: Running) -> None:
    served.detect(encoded(scene()))
    served.ask("/nowhere/1")
    served.ask("/nowhere/2")
    before = served.counted('retina_requests_total{path="/v1/detect",status="200"}')
    served.detect(encoded(scene()))
    answer = served.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    assert f'retina_requests_total{{path="/v1/detect",status="200"}} {before + 1}' in text
    assert 'retina_requests_total{path="other",status="404"} 2.0' in text
    assert "nowhere" not in text
    assert "retina_batch_pictures_count" in text
    assert "process_resident_memory_bytes" in text


def test_every_answer_has_the_headers_that_protect(served: Running) -> None:
    for path in (*ROUTES, "/nowhere", "/v1/detect", "/docs", "/redoc"):
        answer = served.ask(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff", path
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers
        assert (answer.status == 200) == (path in ROUTES), path
    assert "detail" in served.ask("/nowhere").json()
    refused = served.ask("/v1/detect")
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")


def test_the_key_is_asked_for_in_either_header(locked: Running) -> None:
    right = (
        {"Authorization": f"Bearer {KEY}"},
        {"X-API-Key": KEY},
        {"authorization": f"bearer {KEY}"},
    )
    wrong = (
        {},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": "é"},
    )
    data = encoded(scene())
    for path in ("/v1/detect", "/v1/model", "/metrics", "/nowhere"):
        body = data if path == "/v1/detect" else None
        for headers in wrong:
            answer = locked.ask(path, body, "image/png", headers=headers)
            assert answer.status == 401, (path, headers)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for headers in right:
            answer = locked.ask(path, body, "image/png", headers=headers)
            assert answer.status == (404 if path == "/nowhere" else 200)
    for path in ("/", "/health/live", "/health/ready", "/openapi.json"):
        assert locked.ask(path).status == 200
    # With the key, the name by which it was reached does not matter.
    assert locked.ask("/v1/model", headers={"Host": "example.org", "X-API-Key": KEY}).status == 200


def test_without_a_key_other_pages_in_the_browser_are_refused(served: Running) -> None:
    own = f"127.0.0.1:{served.port}"
    for headers, status in (
        ({"Host": "example.org"}, 403),  # a name that was made to point here
        ({"Host": ""}, 403),
        ({"Host": "127.0.0.1.example.org"}, 403),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": f"http://{own}"}, 200),
    ):
        assert served.ask("/v1/model", headers=headers).status == status, headers


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("?score_threshold=1.5", "score_threshold"),
        ("?score_threshold=nan", "score_threshold"),
        ("?score_threshold=high", "score_threshold"),
        ("?max_detections=0", "max_detections"),
        ("?output=gif", "output"),
        ("?image_id=-1", "image_id"),
        ("?threshold=0.5", "threshold"),
    ],
)
def test_a_wrong_query_is_told(query: str, what: str, served: Running) -> None:
    answer = served.detect(encoded(scene()), query)
    assert answer.status == 422
    assert answer.json()["detail"].startswith(f"{what}: ")
