from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch

import retina
from retina.artifact import load_artifact
from retina.errors import UserError
from retina.prediction.predictor import Predictor
from retina.prediction.torchvision_import import torchvision_artifact
from retina.runtime import TiledRuntime, TorchRuntime
from retina.runtime.augmented import AugmentedRuntime
from tests.conftest import RunRetina  # type: ignore[import-not-found]
from tests.prediction.fixed_runtime import TwoObjects  # type: ignore[import-not-found]

NAMES = ["background", "cat", "dog", "bird"]


@pytest.fixture(scope="module")
def v2_weights() -> dict[str, torch.Tensor]:
    from torchvision.models.detection import retinanet_resnet50_fpn_v2

    torch.manual_seed(0)
    model = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=4)
    return model.state_dict()


def test_wrong_number_of_categories_is_refused(v2_weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="have 4 class outputs, but 2 category names"):
        retina.load_torchvision(v2_weights, variant="v2", categories=["cat", "dog"])


def test_weights_of_the_other_variant_are_refused(v2_weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="it looks like v2"):
        retina.load_torchvision(v2_weights, variant="v1", categories=NAMES)


def test_the_shell_imports_what_python_imports(
    run_retina: RunRetina, v2_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(v2_weights, tmp_path / "v2.pth")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    done = run_retina(
        "import", "torchvision", tmp_path / "v2.pth", "--variant", "v2",
        "--categories", tmp_path / "names.txt", "--min-size", "96", "--max-size", "160",
        "--output", tmp_path / "v2.safetensors",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    artifact = load_artifact(tmp_path / "v2.safetensors")
    assert artifact.categories.names == tuple(NAMES)
    assert (artifact.config.preprocess.min_size, artifact.config.preprocess.max_size) == (96, 160)
    here = torchvision_artifact(v2_weights, "v2", NAMES, min_size=96, max_size=160)
    for name, value in here.state_dict.items():
        assert torch.equal(artifact.state_dict[name], value), name


def test_paths_and_arrays_give_the_same_and_batches_do_not_matter(
    v2_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    detector = retina.load_torchvision(
        v2_weights, variant="v2", categories=NAMES, min_size=64, max_size=96, device="cpu"
    )
    assert isinstance(detector.runtime, TorchRuntime)
    detector.runtime.postprocess.score_threshold = 0.0
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((60, 90), (64, 64))]
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image[:, :, ::-1])
    from_arrays = detector.predict(images, 0.0)
    from_paths = detector.predict([paths[0], str(paths[1])], 0.0)
    for a, b in zip(from_arrays, from_paths, strict=True):
        assert len(a) > 0
        assert torch.equal(a.boxes, b.boxes)
    assert detector.predict([]) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tile": "640"}, "tile: '640' is no whole number from 32 on"),
        ({"tile": 64.5}, "tile: 64.5 is no whole number from 32 on"),
        ({"tile": 8}, "tile: 8 is no whole number from 32 on"),
        ({"tile": 64, "overlap": "0.2"}, "overlap: '0.2' is no number; give one from 0 to 0.9"),
        ({"tile": 64, "overlap": None}, "overlap: None is no number; give one from 0 to 0.9"),
        ({"tile": 64, "overlap": 0.95}, "overlap: 0.95 does not lie within 0 … 0.9"),
        ({"test_time": 0.8}, "test_time: 0.8 is no list; put what is meant into [ ]"),
        ({"test_time": None}, "test_time: None is no list; put what is meant into [ ]"),
        (
            {"test_time": "flop"},
            "test_time flop: write flip, or a scale such as 0.8, or several in a list",
        ),
        (
            {"test_time": [None]},
            "test_time None: write flip, or a scale such as 0.8, or several in a list",
        ),
        ({"test_time": [9]}, "test_time 9: a scale lies within 0.25 … 4"),
        ({"tile": 64, "batch_size": 0}, "batch_size: 0 is no whole number from 1 on"),
        ({"tile": 64, "batch_size": 2.5}, "batch_size: 2.5 is no whole number from 1 on"),
        ({"tile": 64, "merge": None}, "merge: None is no text; give 'nms' or 'weighted'"),
    ],
)
def test_views_that_do_not_work_are_told_by_their_argument(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        Predictor(TwoObjects()).with_views(**given)
    assert str(caught.value) == told


def test_a_text_alone_is_a_list_of_one() -> None:
    runtime = Predictor(TwoObjects()).with_views(test_time="flip").runtime
    assert isinstance(runtime, AugmentedRuntime)
    assert runtime.flip
    tiled = Predictor(TwoObjects()).with_views(tile=np.int64(64), batch_size=np.int64(2)).runtime
    assert isinstance(tiled, TiledRuntime)
    assert (tiled.tile, tiled.batch_size) == (64, 2)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_public_import_equals_torchvision_itself(
    variant: Literal["v1", "v2"], torchvision_reference: ModuleType
) -> None:
    reference = torchvision_reference
    model = reference.random_torchvision(variant, 3)
    images = reference.random_images(reference.IMAGE_SIZES, 4)
    expected = reference.detect_with_torchvision(model, images)
    detector = retina.load_torchvision(
        model.state_dict(),
        variant=variant,
        categories=[f"class {n}" for n in range(reference.NUM_CLASSES)],
        min_size=reference.MIN_SIZE,
        max_size=reference.MAX_SIZE,
        device="cpu",
    )
    arrays = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    found = detector.predict(arrays, score_threshold=0.05)
    assert sum(len(one) for one in found) > 50
    for ours, theirs in zip(found, expected, strict=True):
        assert reference.differences(ours, theirs) == []
