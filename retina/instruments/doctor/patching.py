"""The config that the findings ask for: a new file that extends the one that was examined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retina.configuration import Tree, apply_override, merge
from retina.experiment import load_experiment
from retina.instruments.doctor.findings import Finding, joined_patch, patch_yaml
from retina.storage import write_text


def patched_path(config_path: Path) -> Path:
    """Where the mended config is written: ``x.mended.yaml`` beside ``x.yaml``."""
    return config_path.with_name(f"{config_path.stem}.mended.yaml")


def write_patched(
    config_path: Path, overrides: Sequence[str], findings: Sequence[Finding]
) -> Path | None:
    """Write the mended config and load it; None where no finding can be mended by a config.

    The examined file and its comments stay as they are. The overrides of the examination are in the
    new file, under the patches: they may be what was wrong.

    Raises:
        ConfigError: the patched config is not valid.
        UserError: the folder may not be written to.
    """
    patch = joined_patch(findings)
    if not patch:
        return None
    tree: Tree = {}
    for override in overrides:
        tree = apply_override(tree, override)
    tree = merge(tree, patch)
    path = patched_path(config_path)
    codes = [f.code for f in findings if f.patch is not None and f.severity != "note"]
    listed = "".join(f"#   {code}\n" for code in codes)
    head = (
        f"# {config_path.name} as mended by `retina doctor --apply`, for these findings:\n{listed}"
    )
    text = f"{head}\n{patch_yaml({'extends': config_path.name, **tree})}\n"
    write_text(path, text)
    load_experiment(path, ())
    return path
