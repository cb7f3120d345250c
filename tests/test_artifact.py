import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import retina
from retina.artifact import Artifact, load_artifact, make_artifact
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.loading import load_matching
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.modeling.thresholds import ThresholdsConfig
from retina.structures import Categories

MODEL = ModelConfig.model_validate_json(
    """{"backbone": {"kind": "resnet", "name": "resnet18", "norm": "batch"},
        "pyramid": {"channels": 16}, "head": {"num_convs": 1},
        "anchors": {"sizes": [16, 32, 64, 128, 256]}}"""
)


def make(num_classes: int = 3) -> Artifact:
    torch.manual_seed(0)
    return make_artifact(
        MODEL.build(num_classes),
        model=MODEL,
        preprocess=PreprocessConfig(min_size=64, max_size=96, mean=(0.1, 0.2, 0.3)),
        postprocess=PostprocessConfig(score_threshold=0.001, max_detections=17),
        categories=Categories(
            tuple(f"thing {n}" for n in range(num_classes)), (90, 3, 17, 4)[:num_classes]
        ),
        training={"step": 12, "AP": 0.5},
        thresholds=ThresholdsConfig(common=0.02),
    )


def test_a_detector_file_is_enough_to_predict_the_same(tmp_path: Path) -> None:
    artifact, path = make(), tmp_path / "detector.safetensors"
    artifact.save(path)
    read = load_artifact(path)
    assert read.config == artifact.config
    assert read.categories == Categories(("thing 0", "thing 1", "thing 2"), (90, 3, 17))
    assert read.training == {"step": 12, "AP": 0.5}
    image = torch.randint(0, 256, (70, 110, 3), dtype=torch.uint8).numpy()
    from retina.prediction.predictor import Predictor

    (before,) = Predictor.from_artifact(artifact, device="cpu").predict(
        [image], score_threshold=0.0
    )
    detector = retina.load(path, device="cpu")
    (after,) = detector.predict([image], score_threshold=0.0)
    assert len(after) == 17  # the file's own limit
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(before.scores, after.scores)
    assert detector.thresholds.tolist() == [0.02] * 3
    (shown,) = detector.predict([image])
    assert len(shown) == int((after.scores > 0.02).sum())


def test_no_random_numbers_are_drawn_for_a_network_whose_weights_are_known() -> None:
    artifact = make()
    before = torch.get_rng_state()
    built = artifact.build_detector().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(built[name], value) for name, value in artifact.state_dict.items())
    MODEL.build(1)  # what is built otherwise still draws them
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_file_never_asks_for_pretrained_weights_again(tmp_path: Path) -> None:
    artifact = make_artifact(
        MODEL.build(1),
        model=MODEL.model_copy(
            update={"backbone": MODEL.backbone.model_copy(update={"weights": "IMAGENET1K_V1"})}
        ),
        preprocess=PreprocessConfig(),
        postprocess=PostprocessConfig(),
        categories=Categories.from_names(["x"]),
    )
    artifact.save(tmp_path / "d.safetensors")
    assert load_artifact(tmp_path / "d.safetensors").config.model.backbone.weights is None


def test_fine_tuning_to_other_classes_keeps_all_but_the_class_logits() -> None:
    target = MODEL.build(4)
    report = load_matching(target, make(3).state_dict)
    assert [m.name for m in report.mismatched] == [
        "head.classification.output.weight",
        "head.classification.output.bias",
    ]
    assert report.missing == ()
    assert report.unexpected == ()
    text = report.describe()
    assert "head.classification.output.weight is (36, 16, 3, 3) here, (27, 16, 3, 3) in the" in text


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    make().save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"detector\.safetensors: not a readable detector file"):
        load_artifact(path)


def test_a_description_with_unknown_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    make().save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["retina"])
    about["config"]["preproces"] = about["config"].pop("preprocess")
    header["__metadata__"]["retina"] = json.dumps(about)
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])
    with pytest.raises(UserError, match="preproces: unknown key, did you mean 'preprocess'"):
        load_artifact(path)


def test_a_file_of_before_a_key_of_the_postprocessing_takes_its_default(tmp_path: Path) -> None:
    now, before = tmp_path / "now.safetensors", tmp_path / "before.safetensors"
    make().save(now)
    with safe_open(str(now), "pt") as file:
        about = json.loads(file.metadata()["retina"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del about["config"]["postprocess"]["smallest_side"]
    save_file(weights, before, {"retina": json.dumps(about)})
    assert load_artifact(before).config.postprocess == make().config.postprocess
