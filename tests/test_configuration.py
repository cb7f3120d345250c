from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from retina.configuration import (
    NOT_SET,
    Config,
    ConfigError,
    OneOf,
    apply_override,
    differences,
    kept_keys,
    leaves,
    load_config,
    merge,
    parse_yaml,
    read_tree,
    shipped_configs,
    to_yaml,
    validate,
)
from retina.errors import did_you_mean


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9


class Adam(Config):
    kind: Literal["adam"] = "adam"
    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)


class Experiment(Config):
    preset: str | None = None
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()
    names: tuple[str, ...] = ()
    epochs: Annotated[int, Field(ge=1)] = 12
    folder: Path | None = None


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``preset: quick``, and ``preset: quicker``, which stands on it."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "quick.yaml").write_text("epochs: 2\noptimizer: {momentum: 0.5}\n")
    (folder / "quicker.yaml").write_text("extends: quick.yaml\nepochs: 1\n")
    monkeypatch.setattr(Experiment, "preset_folder", folder)


def load(tmp_path: Path, text: str, *overrides: str) -> Experiment:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return load_config(path, overrides, Experiment)


def failure(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


def test_every_problem_of_a_file_stands_in_one_message(tmp_path: Path) -> None:
    message = failure(
        tmp_path, "optimizer: {kind: sgd, momentun: 0.8, lr: fast}\nepochs: 0\nnames: [1]\n"
    )
    assert "experiment.yaml: 4 problems" in message
    assert "optimizer.momentun: unknown key, did you mean 'momentum'? (value 0.8)" in message
    assert "optimizer.lr: input should be a valid number (value 'fast')" in message
    assert "epochs: input should be greater than or equal to 1 (value 0)" in message
    assert "names.0: input should be a valid string (value 1)" in message


def test_a_wrong_kind_names_the_nearest_one(tmp_path: Path) -> None:
    message = failure(tmp_path, "optimizer: {kind: adma}\n")
    assert "optimizer.kind: 'adma' is none of 'sgd', 'adam', did you mean 'adam'?" in message


def test_numbers_and_words_are_read_as_yaml_1_2_reads_them(tmp_path: Path) -> None:
    config = load(
        tmp_path, "optimizer: {kind: sgd, lr: 1e-4}\nnames: [no, on, yes, off, 1_2, 0x1f, 12:30]\n"
    )
    assert isinstance(config.optimizer, Sgd)
    assert config.optimizer.lr == 1e-4
    assert config.names == ("no", "on", "yes", "off", "1_2", "0x1f", "12:30")


def test_a_boolean_is_no_number(tmp_path: Path) -> None:
    assert "epochs: input should be a valid integer" in failure(tmp_path, "epochs: true\n")


def test_overrides_reach_keys_and_whole_objects(tmp_path: Path) -> None:
    config = load(tmp_path, "epochs: 3\n", "optimizer.lr=0.005", "names=[a, b]", "folder=runs/x")
    assert isinstance(config.optimizer, Sgd)
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.005, 0.9)
    assert config.names == ("a", "b")
    assert config.folder == Path("runs/x")
    whole = load(tmp_path, "optimizer: {lr: 1.0}\n", "optimizer={kind: adam, betas: [0.5, 0.9]}")
    assert whole.optimizer == Adam(betas=(0.5, 0.9))


def test_another_kind_takes_nothing_over_from_the_one_below(tmp_path: Path) -> None:
    text = "optimizer: {kind: sgd, lr: 3.0, momentum: 0.1}\n"
    assert load(tmp_path, text, "optimizer.kind=adam").optimizer == Adam()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "'epochs' is no override: write key=value"),
        ("epochs.x.y=1", "the key before 'x' holds 3, not a mapping"),
        ("names.7=x", "'7' is no position of a list with 1 entry "),
        ("epoch=4", "epoch: unknown key, did you mean 'epochs'?"),
        ("names=[a", "the value of the override 'names=[a', line 1"),
    ],
)
def test_bad_overrides_say_why(tmp_path: Path, override: str, message: str) -> None:
    assert message in failure(tmp_path, "epochs: 3\nnames: [a]\n", override)


def test_extends_lays_a_file_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text("epochs: 5\noptimizer: {lr: 2.0}\n")
    config = load(tmp_path, "extends: bases/base.yaml\noptimizer: {momentum: 0.0}\n")
    assert config.epochs == 5
    assert config.optimizer == Sgd(lr=2.0, momentum=0.0)


def test_extends_in_a_ring_is_refused(tmp_path: Path) -> None:
    assert "leads back to this file" in failure(tmp_path, "extends: experiment.yaml\n")


@pytest.mark.usefixtures("presets")
def test_presets_lie_below_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, "preset: quick\noptimizer: {lr: 7.0}\n")
    assert config.epochs == 2
    assert config.optimizer == Sgd(lr=7.0, momentum=0.5)
    message = failure(tmp_path, "preset: quik\n")
    assert "there is no preset 'quik', did you mean 'quick'?; known: quick, quicker" in message
    assert "there is no preset '../experiment'" in failure(tmp_path, "preset: ../experiment\n")


@pytest.mark.usefixtures("presets")
def test_the_layers_of_a_config_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optimizer: {momentum: 0.1, lr: 1.0}\nnames: [base]\n")
    text = "preset: quicker\nextends: base.yaml\noptimizer: {lr: 2.0}\n"
    config = load(tmp_path, text, "names=[override]")
    assert config.epochs == 1  # of the preset, over what that preset extends
    assert config.optimizer == Sgd(momentum=0.1, lr=2.0)  # of the base, and of the file over it
    assert config.names == ("override",)
    other = load(tmp_path, text, "epochs=5", "preset=quick")
    assert (other.preset, other.epochs) == ("quick", 5)
    assert load(tmp_path, text, "preset=quick").epochs == 2


def test_a_bare_name_that_is_no_file_means_a_shipped_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nano = read_tree(shipped_configs() / "nano.yaml")
    assert read_tree("nano.yaml") == nano
    Path("mine.yaml").write_text("extends: nano.yaml\nseed: 7\n")
    assert read_tree("mine.yaml") == {**nano, "seed": 7}
    with pytest.raises(ConfigError, match=r"x/nano\.yaml: no such config file"):
        read_tree("x/nano.yaml")
    Path("nano.yaml").write_text("seed: 1\n")
    assert read_tree("mine.yaml") == {"seed": 7}  # what lies beside it comes first


@pytest.mark.usefixtures("presets")
def test_the_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    config = load(tmp_path, "preset: quick\nnames: [no, '1e3', 'null', ä]\nfolder: runs/x\n")
    text = to_yaml(config)
    assert validate(parse_yaml(text, "text"), Experiment, source="text") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nepochs: 2\n", "line 2, column 1: the key 'epochs' stands twice"),
        ("epochs: [1\n", "line 2"),
        ("- 1\n", "a config is a mapping"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not read",
        ),
        ("extends: missing.yaml\n", "missing.yaml: no such config file"),
    ],
)
def test_unreadable_files_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    assert message in failure(tmp_path, text)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Experiment()


class Sized(Config):
    kind: str
    size: int = 3


class Small(Sized):
    kind: Literal["small"] = "small"
    size: int = 1


class Large(Sized):
    kind: Literal["large"] = "large"
    extra: float = 0.0


class OfOne(Config):
    part: Annotated[Sized, OneOf(Small)] = Small()


class OfTwo(Config):
    part: Annotated[Sized, OneOf(Small, Large)] = Small()


@pytest.mark.parametrize("schema", [OfOne, OfTwo])
def test_a_field_takes_one_of_several_kinds(schema: type[OfOne | OfTwo]) -> None:
    default = validate({"part": {"size": 2}}, schema, source="test")
    assert default.part == Small(size=2)
    assert validate(parse_yaml(to_yaml(default), "text"), schema, source="text") == default
    with pytest.raises(ConfigError, match=r"part\.sized: unknown key, did you mean 'size'\?"):
        validate({"part": {"sized": 2}}, schema, source="test")
    with pytest.raises(ConfigError, match=r"part\.kind: 'smaller' is none of .*mean 'small'\?"):
        validate({"part": {"kind": "smaller"}}, schema, source="test")


def test_another_kind_has_its_own_keys_and_no_others() -> None:
    large = validate({"part": {"kind": "large", "extra": 0.5}}, OfTwo, source="test")
    assert large.part == Large(extra=0.5)
    assert parse_yaml(to_yaml(large), "text") == {
        "part": {"kind": "large", "size": 3, "extra": 0.5}
    }
    with pytest.raises(ConfigError, match=r"part\.extra: unknown key"):
        validate({"part": {"extra": 0.5}}, OfTwo, source="test")
    with pytest.raises(ConfigError, match=r"part\.kind: 'large' is none of 'small'"):
        validate({"part": {"kind": "large"}}, OfOne, source="test")


def test_differences_of_two_configs() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": None}
    assert leaves(before) == {"a.b": 1, "a.c": [1, 2], "d": None}
    assert differences(before, before) == {}
    assert differences(before, {"a": {"b": 2, "c": [1, 2]}, "d": {"e": 0}}) == {
        "a.b": (1, 2),
        "d": (None, NOT_SET),
        "d.e": (NOT_SET, 0),
    }


def test_the_nearest_word_is_offered_where_one_is_near() -> None:
    assert did_you_mean("resnet5", ["resnet18", "resnet50"]) == ", did you mean 'resnet50'?"
    assert did_you_mean("x", ["resnet18", "resnet50"]) == ""


def test_merge_and_override_leave_their_arguments_alone() -> None:
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert apply_override(base, "a.b=3") == {"a": {"b": 3}}
    assert base == {"a": {"b": 1}}


def test_what_a_file_keeps_over_a_preset_of_the_command_line() -> None:
    template = shipped_configs() / "my_data_cpu.yaml"
    kept = kept_keys(template, ["preset=paper", "preprocess={min_size: 320}", "model.pyramid={}"])
    assert kept["optimizer.lr"] == (0.002, 0.01)
    assert kept["training.epochs"] == (40, 12)
    assert kept["model.backbone.name"] == ("resnet18", "resnet50")
    # A mapping is laid over the file's, so that the rest of that one stays.
    assert "preprocess.min_size" not in kept
    assert kept["preprocess.max_size"] == (400, 1333)
    assert kept["model.pyramid.channels"] == (64, 256)
    assert not any(key.startswith("dataset") for key in kept)
    assert kept_keys(template, ['preset="paper"']) == kept_keys(template, ["preset= paper"])
    other = ["preset=paper", "model.backbone={kind: timm, name: resnet50}"]
    assert "model.backbone.weights" not in kept_keys(template, other)
    # The file's rate is not one of another optimizer.
    assert "optimizer.lr" not in kept_keys(template, ["preset=paper", "optimizer.kind=adamw"])
    assert kept_keys(template, ["preset=own_data"]) == {}
    assert kept_keys(template, ["optimizer.lr=1.0"]) == {}
    assert kept_keys(template, ["preset=null"]) == {}


def test_what_a_preset_leaves_to_its_optimizer_stays_too(tmp_path: Path) -> None:
    path = tmp_path / "made.yaml"
    path.write_text("preset: own_data\noptimizer: {lr: 1e-3, backbone_lr_factor: 0.1}\n")
    kept = kept_keys(path, ["preset=paper", "optimizer.lr=0.01"])
    assert kept == {"optimizer.backbone_lr_factor": (0.1, NOT_SET)}


@pytest.mark.parametrize("preset", ["paper", "torchvision_v2", "detectron2", "gfl"])
def test_the_template_leaves_a_preset_its_optimizer(preset: str) -> None:
    kept = kept_keys(shipped_configs() / "my_data.yaml", [f"preset={preset}"])
    assert set(kept) <= {"preprocess.min_size", "preprocess.max_size", "training.epochs"}
