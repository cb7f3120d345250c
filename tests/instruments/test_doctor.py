"""``retina doctor``: its parts by themselves, its command, and its short form."""

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from retina.configuration import ConfigError
from retina.experiment import ExperimentConfig, load_experiment
from retina.instruments.doctor import learning_rate
from retina.instruments.doctor.anchors.check import in_short
from retina.instruments.doctor.anchors.coverage import Share
from retina.instruments.doctor.categories import check_class_counts
from retina.instruments.doctor.checks import CHECKS, Report, run_checks, short_form
from retina.instruments.doctor.context import CheckContext, read_context
from retina.instruments.doctor.findings import (
    CheckResult,
    Finding,
    joined_patch,
    named,
    worst_first,
)
from retina.instruments.doctor.learning_rate import probe_learning_rate
from retina.instruments.doctor.overfit import Overfit, check_overfit, overfit_one_batch, truth_of
from retina.instruments.doctor.report import (
    conclusion,
    finding_lines,
    results_table,
    to_json,
    write_fixed_config,
)
from retina.instruments.doctor.speed_and_memory import (
    MemoryUse,
    check_memory,
    check_speed,
    compare_speeds,
    judge_memory,
    largest_batch,
)
from retina.instruments.doctor.trial import load_batch, plain_requests
from retina.registry import HOOKS
from retina.structures import SampleRequest
from tests.conftest import Invoke  # type: ignore[import-not-found]


def finding(code: str, level: str = "warning", **patch: object) -> Finding:
    return Finding(
        code=code,
        level=level,  # type: ignore[arg-type]
        what=f"{code} is wrong",
        why="It matters.",
        fix="Fix it.",
        patch=patch or None,
    )


@pytest.fixture
def context(tiny_config: Path, tmp_path: Path) -> CheckContext:
    return read(load_experiment(tiny_config, [f"output_dir={tmp_path / 'run'}"]))


def read(config: ExperimentConfig) -> CheckContext:
    context, _ = read_context(config)
    assert context is not None
    return context


# --- findings and patches


def test_findings_are_sorted_and_joined_by_level() -> None:
    findings = [
        finding("a", "note", optimizer={"lr": 1.0}),
        finding("b", "warning", optimizer={"lr": 2.0}, training={"batch_size": 4}),
        finding("c", "error", optimizer={"lr": 3.0}),
        finding("d", "error"),
    ]
    assert [f.code for f in worst_first(findings)] == ["c", "d", "b", "a"]
    assert CheckResult("", tuple(findings)).verdict == "error"
    assert CheckResult("").verdict == "well"
    assert CheckResult("", is_made=False).verdict == "not made"
    # The worse one has its way, and what is only worth a note changes nothing.
    assert joined_patch(findings) == {"optimizer": {"lr": 3.0}, "training": {"batch_size": 4}}
    assert findings[3].line() == "error: d is wrong. Fix it. [d]"
    assert conclusion(Report((CheckResult("", tuple(findings)),))) == (
        "findings: 2 errors, 1 warning, 1 note"
    )
    assert conclusion(Report((CheckResult(""),))) == "all is well"
    assert named(["a", "b", "c"], 2) == "a, b and 1 more"
    assert finding_lines(findings[2])[-1] == "    optimizer: {lr: 3.0}"


def test_a_training_that_cannot_begin_costs_no_other_check(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    """As without a network: the weights are not there, and the data can be checked all the same."""
    missing = tmp_path / "missing.safetensors"
    done = invoke(
        *("doctor", tiny_config, f"model.backbone.weights={missing}", "model.backbone.norm=frozen"),
        *("training.min_steps=400", f"output_dir={tmp_path / 'run'}", "--output", tmp_path / "out"),
    )
    assert done.code == 2
    (message,) = done.err.splitlines()
    assert str(missing) in message
    assert "anchor coverage" in done.out
    assert "objects_too_small" in done.out
    told = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert str(missing) in told["stopped_by"]
    verdicts = {one["name"]: one["verdict"] for one in told["checks"]}
    names = ("memory", "learning rate probe", "overfit one batch", "speed")
    assert [verdicts[name] for name in names] == ["not made"] * 4
    assert verdicts["normalisation"] != "not made"


def test_the_fixed_config_extends_the_old_one(tiny_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"# my comment\nextends: {tiny_config}\noutput_dir: {tmp_path / 'run'}\n")
    overrides = ["optimizer.lr=0.5", "training.epochs=3"]
    written = write_fixed_config(path, overrides, [finding("a", "error", optimizer={"lr": 0.001})])
    assert written == tmp_path / "mine.mended.yaml"
    assert "# my comment" in path.read_text()
    tree = yaml.safe_load(written.read_text())
    assert tree == {
        "extends": "mine.yaml",
        "optimizer": {"lr": 0.001},
        "training": {"epochs": 3},
    }
    assert "#   a\n" in written.read_text()
    config = load_experiment(written, ())
    assert (config.optimizer.lr, config.training.epochs) == (0.001, 3)
    assert write_fixed_config(path, (), [finding("data")]) is None
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        write_fixed_config(path, (), [finding("a", "error", optimizer={"lr": -1.0})])


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.334, 0.333, 0.333), "33% matched, 33% low-quality, 33% none"),
        ((0.997, 0.002, 0.001), ">99% matched, <1% low-quality, <1% none"),
        ((1.0, 0.0, 0.0), "100% matched, 0% low-quality, 0% none"),
    ],
)
def test_the_anchor_coverage_of_a_large_set_fits_into_a_line_of_the_table(
    shares: tuple[float, float, float], words: str
) -> None:
    summary = in_short(Share(100_000, *shares))
    assert summary == f"100000: {words}"
    results = [CheckResult(summary, name=check.name, is_made=False) for check in CHECKS]
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(results_table(Report(tuple(results))).to_terminal())
    lines = capture.get().splitlines()
    assert [summary in line for line in lines] == [False, False, *[True] * len(CHECKS)]


# --- speed and memory


@pytest.mark.parametrize(
    ("loaded", "workers", "cores", "codes", "patch"),
    [
        (200.0, 2, 8, [], None),
        (50.0, 2, 8, ["warning"], {"training": {"num_workers": 5}}),
        (95.0, 2, 8, ["note"], {"training": {"num_workers": 3}}),
        (10.0, 2, 8, ["warning"], {"training": {"num_workers": 8}}),
        (50.0, 8, 8, ["warning"], None),
        (50.0, 0, 1, ["warning"], None),
    ],
)
def test_a_loader_that_is_too_slow(
    loaded: float, workers: int, cores: int, codes: list[str], patch: object
) -> None:
    found = compare_speeds(loaded, 100.0, workers=workers, cores=cores)
    assert [f.level for f in found] == codes
    assert [f.patch for f in found] == ([patch] if codes else [])
    assert all(f.code == "loader_slow" for f in found)


def test_memory_that_does_not_suffice() -> None:
    shape = (8, 800, 1344)
    assert judge_memory(MemoryUse(80, 100, shape), 1, 8) == ()
    assert judge_memory(MemoryUse(80, 0, shape), 1, 8) == ()  # nobody knows
    (found,) = judge_memory(MemoryUse(95 << 30, 100 << 30, shape), 1, 8)
    assert found.what.endswith("(8 × 3 × 800 × 1344) takes 95.0 GiB of 100.0 GiB")
    assert found.patch == {"training": {"accumulation_steps": 2}}
    (found,) = judge_memory(MemoryUse(sys.maxsize, 0, (1, 800, 1344)), 1, 1)
    assert "more memory than there is" in found.what
    assert found.patch is None


def test_the_largest_batch_is_that_of_the_most_padded_pixels() -> None:
    def batch(*sizes: tuple[int, int]) -> list[SampleRequest]:
        return [SampleRequest(index=0, seed=0, max_size=size) for size in sizes]

    wide_and_upright = batch((100, 200), (200, 100))
    batches = [batch((150, 150), (150, 150)), wide_and_upright, batch((199, 199), (1, 1))]
    assert largest_batch(batches) is wide_and_upright


def test_a_loader_and_a_network_are_timed(context: CheckContext) -> None:
    result = check_speed(context)
    assert set(result.numbers) == {"loader", "network", "num_workers"}
    assert result.numbers["loader"] > 0  # type: ignore[operator]
    used = check_memory(context)
    assert (used.numbers["images"], used.numbers["height"]) == (8, 96)
    assert used.findings == ()


# --- real steps


def test_the_probe_names_a_rate_that_diverges(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rate, "_PROBE_STEPS", 8)
    monkeypatch.setattr(learning_rate, "_PROBE_WARM_UP", 2)
    overrides = [f"output_dir={tmp_path}", "training.clip_norm=null", "training.batch_size=4"]
    good = load_experiment(tiny_config, [*overrides, "optimizer={kind: sgd, lr: 0.005}"])
    sound = read(good)
    assert probe_learning_rate(sound).findings == ()
    bad = load_experiment(tiny_config, [*overrides, "optimizer={kind: sgd, lr: 5.0}"])
    wrong = read(bad)
    (found,) = probe_learning_rate(wrong).findings
    assert (found.code, found.level) == ("learning_rate_diverges", "error")
    assert found.patch == {"optimizer": {"lr": 0.5}}
    monkeypatch.setattr(learning_rate, "_RISEN", 0.0)  # so that no rate is ever good enough
    assert [f.code for f in probe_learning_rate(sound).findings] == ["loss_rises"]


def test_ten_times_too_high_is_named_where_a_tenth_goes_well(
    context: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def descend(trial: object, batches: object, peak: float) -> list[float]:
        return [2.0, 1.5, 1.2, 1.0] if peak < 1e-3 else [2.0, 5.0, 40.0, float("inf")]

    monkeypatch.setattr(learning_rate, "_descend", descend)
    (found,) = probe_learning_rate(context).findings
    assert found.code == "learning_rate_diverges"
    assert "becomes infinite in 4 steps at the learning rate 0.002" in found.what
    assert found.patch == {"optimizer": {"lr": 0.0002}}
    json.dumps(found.numbers, allow_nan=False)


def test_the_truth_of_a_batch_is_its_objects(context: CheckContext) -> None:
    batch = load_batch(context, plain_requests(context, 3))
    truth = truth_of(batch, context.train.categories)
    assert len(truth.annotation_ids) == int(batch.targets.is_object.sum())
    first = truth.boxes_xywh[truth.annotation_image_ids == 1]
    expected = batch.targets.boxes[1][batch.targets.is_object[1]].numpy()
    np.testing.assert_allclose(first[:, :2], expected[:, :2])
    np.testing.assert_allclose(first[:, :2] + first[:, 2:], expected[:, 2:], rtol=1e-6)


def test_overfitting_stops_at_its_bound_and_says_what_it_reached(context: CheckContext) -> None:
    outcome = overfit_one_batch(context, max_steps=3)
    assert outcome.steps == 3
    assert 0 <= outcome.ap <= outcome.ap50 < 0.9
    assert Overfit(ap=0.2, ap50=0.3, steps=400, seconds=9.0, loss=1.0).level == "error"
    assert Overfit(0.8, 0.99, 400, 9.0, 0.1).level == "note"
    assert Overfit(0.5, 0.7, 400, 9.0, 0.1).level == "warning"
    assert Overfit(0.95, 0.99, 400, 9.0, 0.1).level is None
    # 66 steps of a good set-up, all that a busy machine made in four minutes.
    assert Overfit(0.1, 0.21, 66, 243.0, 0.6, is_cut=True).level == "note"


@pytest.mark.slow
def test_one_batch_is_overfitted_and_garbage_is_not(
    synthetic_data: Path, tiny_config: Path, tmp_path: Path
) -> None:
    overrides = [
        f"output_dir={tmp_path}",
        "preprocess={min_size: 96, max_size: 128}",
        "model.backbone={kind: resnet, name: resnet18, norm: batch}",
        "model.pyramid.channels=64",
        "model.head={num_convs: 4, num_groups: 16}",
    ]
    result = check_overfit(read(load_experiment(tiny_config, overrides)))
    assert result.findings == ()
    assert result.numbers["AP"] > 0.9  # type: ignore[operator]

    high = [*overrides, "optimizer.lr=0.5", "training.clip_norm=null"]
    (found,) = check_overfit(read(load_experiment(tiny_config, high))).findings
    assert (found.code, found.level) == ("batch_not_learned", "error")


# --- the command


def test_the_command_prints_writes_and_exits_with_1_where_there_is_an_error(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "setup.yaml"
    config.write_text(
        f"extends: {tiny_config}\noutput_dir: {tmp_path / 'run'}\noptimizer: {{lr: 0.05}}\n"
    )
    done = invoke("doctor", config, "--quick", "--apply", "--output", tmp_path / "out")
    assert done.code == 1, done.err
    assert "error learning_rate_high" in done.out
    assert "warning objects_too_small" in done.out
    assert "setup.mended.yaml" in done.out
    result = json.loads((tmp_path / "out" / "doctor.json").read_text())
    assert result["severe"] is True
    found = [finding["code"] for finding in result["findings"]]
    assert found[:2] == ["learning_rate_high", "objects_too_small"]
    assert {check["name"] for check in result["checks"]} >= {"categories", "normalisation"}
    assert result["patch"]["preprocess"]["min_size"] > 64
    assert (tmp_path / "out" / "batch.png").exists()
    assert not (tmp_path / "run").exists()

    fixed = invoke("doctor", tmp_path / "setup.mended.yaml", "--quick")
    assert fixed.code == 0, fixed.out
    # 24 images have few rings, and are few for this backbone, which has no weights to propose.
    assert "findings: 1 warning, 1 note" in fixed.out
    assert "from_scratch_small_set" in fixed.out
    assert (tmp_path / "run_doctor" / "doctor.json").exists()

    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = invoke("doctor", config)
    assert refused.code == 2
    assert "start it without torchrun" in refused.err


def test_every_check_has_a_line_of_json(context: CheckContext, tmp_path: Path) -> None:
    result = run_checks(context.config, tmp_path, quick=True)
    tree = to_json(result, Path("x.yaml"))
    json.dumps(tree, allow_nan=False)
    assert {check["verdict"] for check in tree["checks"]} <= {"well", "note", "warning"}


# --- the short form


def state_of_all_generators() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


def test_the_short_form_draws_no_random_number(context: CheckContext) -> None:
    before = state_of_all_generators()
    found = short_form(context.config, context.train, context.validation)
    assert [f.code for f in found] == [
        "objects_too_small", "from_scratch_small_set", "too_few_steps"
    ]  # fmt: skip
    assert state_of_all_generators() == before


def test_a_training_is_the_same_to_the_bit_with_and_without_it(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = "training.max_steps=3"
    told = invoke("train", tiny_config, f"output_dir={tmp_path / 'told'}", steps)
    assert told.code == 0, told.err
    lines = [line for line in told.out.splitlines() if line.endswith("[objects_too_small]")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: the objects are too small at the network's input")
    others = tuple(name for name in HOOKS if "doctor" not in name)
    monkeypatch.setattr("retina.experiment.setup.HOOKS", others)
    silent = invoke("train", tiny_config, f"output_dir={tmp_path / 'silent'}", steps)
    assert "objects_too_small" not in silent.out
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True)["detector"]
        for name in ("told", "silent")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_is_silent_where_all_is_well(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    first = ("train", tiny_config, f"output_dir={tmp_path / 'first'}", "training.max_steps=1")
    assert "[from_scratch_small_set]" in invoke(*first, "dataset.validation=null").out
    done = invoke(
        "train",
        tiny_config,
        f"output_dir={tmp_path / 'run'}",
        f"model.initialize_from={tmp_path / 'first/checkpoints/last.safetensors'}",
        "preprocess={min_size: 192, max_size: 288}",
        "training.max_steps=1",
        "training.epochs=1",
        "dataset.validation=null",
    )
    assert done.code == 0, done.err
    assert "error:" not in done.out
    assert "warning" not in done.out


def test_another_programs_weights_do_not_say_what_their_pixels_were() -> None:
    from retina.instruments.doctor.inputs import _differs_from_start
    from retina.modeling.preprocess import PreprocessConfig

    assert list(_differs_from_start(PreprocessConfig(), Path("torchvisions.pth"))) == []


def test_classes_of_one_name_are_counted_apart(
    context: CheckContext, tiny_config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    tree = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    for category in tree["categories"]:
        category["name"] = "thing"
    path = tmp_path / "twins.json"
    path.write_text(json.dumps(tree))
    options = [f"dataset.train.annotations={path}", "dataset.validation=null"]
    twins = read(load_experiment(tiny_config, [*options, f"output_dir={tmp_path / 'run'}"]))
    numbers, plain = check_class_counts(twins).numbers, check_class_counts(context).numbers
    names = [f"thing (id {category['id']})" for category in tree["categories"]]
    assert list(numbers) == ["boxes", *names]
    assert list(numbers.values()) == list(plain.values())
