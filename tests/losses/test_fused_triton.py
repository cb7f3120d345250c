"""The CUDA kernel without a GPU: its source in Triton's interpreter, and compiled for Hopper.

Triton reads TRITON_INTERPRET when it is imported, so the interpreted tests run in a process of
their own, which runs this file again with the variable set.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina.losses.focal_parameters import focal_parameters
from retina.losses.focal_reference import class_index_loss

pytest.importorskip("triton", reason="Triton is not installed; it has wheels for Linux")

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="run by test_in_the_interpreter")
compiled = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter does not compile")
IGNORED = -7

# One unit in the last place of the 16-bit types: the interpreter cuts float32 off to bfloat16,
# where a GPU rounds. float32: exp2 of a product that is rounded at 23 (x = 16) and more.
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@compiled
def test_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 100, done.stdout


def example(num_classes: int, dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, class indices with left-out rows, row weights of either sign."""
    generator = torch.Generator().manual_seed(num_classes)
    x = torch.randn(*shape, num_classes, generator=generator) * 4
    targets = torch.randint(0, num_classes + 2, shape, generator=generator)
    targets[targets == num_classes + 1] = IGNORED
    return x.to(dtype), targets, torch.rand(shape, generator=generator) - 0.2


def check(
    x: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    alpha: object,
    gamma: object,
    ignore_index: int | None = IGNORED,
    scale: Tensor | None = None,
) -> None:
    """Total, share and gradient against the plain form in float64."""
    from retina.losses.fused.triton_kernel import triton_focal_loss

    z = x.detach().double().requires_grad_()
    parameters = focal_parameters(alpha, gamma, ignore_index, z)  # type: ignore[arg-type]
    loss = class_index_loss(z, targets, parameters).sum(-1)
    if weights is not None:
        loss = loss * weights.double()
    if scale is not None:
        loss = loss * scale.double()
    (slopes,) = torch.autograd.grad(loss.sum(), z)
    is_class = (targets >= 0) & (targets < x.shape[-1])
    share = loss.detach()[is_class].sum().item()

    gradient = torch.empty_like(x).fill_(torch.nan)
    parameters = focal_parameters(alpha, gamma, ignore_index, x)  # type: ignore[arg-type]
    kept = x.clone()
    options = {"row_weights": weights, "scale": scale}
    total, foreground = triton_focal_loss(x, targets, parameters, gradient=gradient, **options)
    relative = 1e-6 if x.dtype == torch.float32 else 1e-5
    size = loss.detach().abs().sum().item()  # weights of both signs may cancel
    assert total.item() == pytest.approx(loss.sum().item(), abs=relative * size)
    assert foreground.item() == pytest.approx(share, abs=relative * size)
    smallest = 2**-24 if x.dtype == torch.float16 else 1e-36
    torch.testing.assert_close(gradient.double(), slopes, rtol=TOLERANCES[x.dtype], atol=smallest)
    assert torch.equal(x, kept)
    assert torch.equal(total, triton_focal_loss(x, targets, parameters, **options)[0])


@interpreted
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 0.7, "per class"])
@pytest.mark.parametrize("alpha", [None, 0.25, "per class"])
@pytest.mark.parametrize("num_classes", [1, 3, 80])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_equals_the_plain_form(
    dtype: torch.dtype, num_classes: int, alpha: object, gamma: object
) -> None:
    x, targets, weights = example(num_classes, dtype, 2, 19)
    alpha = torch.linspace(0.1, 0.9, num_classes) if alpha == "per class" else alpha
    gamma = torch.linspace(0, 4, num_classes) if gamma == "per class" else gamma
    check(x, targets, weights, alpha, gamma)


@interpreted
@pytest.mark.parametrize("num_classes", [2, 7, 20, 91, 264])
def test_any_number_of_classes(num_classes: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x, targets, weights = example(num_classes, dtype, 40)
        check(x, targets, weights, 0.25, 2.0)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_than_one_program(dtype: torch.dtype) -> None:
    x, targets, weights = example(16, dtype, 1000)
    check(x, targets, weights, 0.25, 2.0)
    check(x, targets, None, 0.25, 2.0, scale=torch.tensor(0.125))


@interpreted
def test_options_can_be_left_out() -> None:
    x, targets, weights = example(80, torch.float32, 30)
    targets = targets.clamp(min=0)
    check(x, targets, None, None, 2.0, ignore_index=None)
    check(x, targets, weights, 0.25, 2.0, ignore_index=None)
    check(x, targets.int(), None, 0.25, 2.0, ignore_index=3)


@interpreted
def test_rows_left_out_are_not_even_read() -> None:
    from retina.losses.fused.triton_kernel import triton_focal_loss

    x = torch.tensor([[torch.nan, torch.inf], [0.0, 0.0]])
    gradient = torch.empty_like(x)
    parameters = focal_parameters(0.25, 2.0, -1, x)
    total, _ = triton_focal_loss(x, torch.tensor([-1, 2]), parameters, gradient=gradient)
    # Two negatives at p = 1/2: 0.75 / 4 * ln 2 each, slope 0.75 / 4 * (1/2 + ln 2).
    log_2 = torch.log(torch.tensor(2.0)).item()
    assert total.item() == pytest.approx(2 * 0.1875 * log_2, rel=1e-6)
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient[1].tolist() == pytest.approx([0.1875 * (0.5 + log_2)] * 2, rel=1e-6)


@interpreted
@pytest.mark.parametrize("point", [-1e4, -200.0, -88.0, -17.0, 0.0, 17.0, 88.0, 200.0, 1e4])
def test_extreme_logits(point: float) -> None:
    for gamma in (0.0, 0.5, 2.0):
        x = torch.tensor([[point, -point]])
        for target in range(3):
            check(x, torch.tensor([target]), None, 0.25, gamma)


LAYOUTS = {
    "channels last": lambda x: (
        x.permute(0, 3, 4, 1, 2)
        .reshape(2, 15, 6, 4)
        .contiguous(memory_format=torch.channels_last)
        .permute(0, 2, 3, 1)
        .reshape(2, 6, 4, 3, 5)
    ),
    "channels first": lambda x: x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2),
    "a slice of levels": lambda x: torch.cat([x, x, x], dim=1)[:, 6:12],
    "a slice of classes": lambda x: torch.cat([x, x], dim=-1)[..., 3:8],
    "expanded": lambda x: x[:, :, :, :1].expand(-1, -1, -1, 3, -1),
}


@interpreted
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_strides(layout: str) -> None:
    x, targets, weights = example(5, torch.float32, 2, 6, 4, 3)
    check(LAYOUTS[layout](x), targets, weights, 0.25, 2.0)
    per_image = torch.tensor([0.5, 2.0])[:, None, None, None].expand(2, 6, 4, 3)
    check(LAYOUTS[layout](x), targets, per_image, 0.25, 2.0)


@interpreted
@pytest.mark.parametrize("layout", ["channels last", "channels first", "a slice of levels"])
def test_the_gradient_may_take_the_place_of_the_logits(layout: str) -> None:
    from retina.losses.fused.triton_kernel import triton_focal_loss

    x, targets, _ = example(5, torch.float32, 2, 6, 4, 3)
    x = LAYOUTS[layout](x).clone(memory_format=torch.preserve_format)
    parameters = focal_parameters(0.25, 2.0, IGNORED, x)
    gradient = torch.empty_like(x)
    apart, _ = triton_focal_loss(x, targets, parameters, gradient=gradient)
    together, _ = triton_focal_loss(x, targets, parameters, gradient=x)
    assert torch.equal(apart, together)
    assert torch.equal(x, gradient)


@interpreted
@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    from retina.losses.fused.triton_kernel import triton_focal_loss

    x = torch.zeros(*shape, 3)
    targets = torch.zeros(shape, dtype=torch.int64)
    parameters = focal_parameters(0.25, 2.0, None, x)
    sums = triton_focal_loss(x, targets, parameters, gradient=torch.empty_like(x))
    assert [value.item() for value in sums] == [0.0, 0.0]


@interpreted
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("factor", [1.0, -0.5, 0.0])
def test_scaling_in_place(dtype: torch.dtype, factor: float) -> None:
    from retina.losses.fused.triton_kernel import BLOCK_ELEMENTS, scale_in_place

    for values in (
        torch.randn(3, BLOCK_ELEMENTS + 1).to(dtype),
        torch.randn(4, 5, 6).to(dtype).permute(2, 0, 1),
        torch.randn(4, 6).to(dtype)[:, :3],  # with gaps
    ):
        expected = values * factor  # exact in every dtype
        result = scale_in_place(values, torch.tensor(factor))
        assert result.data_ptr() == values.data_ptr()
        assert torch.equal(result, expected)


@compiled
@pytest.mark.parametrize(
    ("dtype", "num_classes", "options"),
    [
        ("bf16", 80, {}),
        ("fp16", 80, {"ALPHA": 2, "GAMMA": 4, "HAS_WEIGHTS": True, "HAS_SCALE": True}),
        ("fp32", 80, {"GAMMA": 3, "IS_DENSE": False}),
        ("bf16", 91, {"GAMMA": 0, "ALPHA": 0, "HAS_IGNORED": False, "HAS_GRADIENT": False}),
    ],
)
def test_compiles_for_hopper(
    dtype: str,
    num_classes: int,
    options: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The interpreter takes what the compiler refuses, so the compiler has its say too."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from retina.losses.fused.triton_kernel import BLOCK_ELEMENTS, _focal_kernel, _vector

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    vector = _vector(num_classes, 4 if dtype == "fp32" else 2)
    constants: dict[str, int] = {
        "NUM_CLASSES": num_classes,
        "VECTOR": vector,
        "GROUPS": BLOCK_ELEMENTS // vector,
        "IS_DENSE": True,
        "ALPHA": 1,
        "GAMMA": 2,
        "HAS_IGNORED": True,
        "HAS_WEIGHTS": False,
        "HAS_SCALE": False,
        "HAS_GRADIENT": True,
        "IS_SHORT": dtype != "fp32",
        "ON_GPU": True,
        "column_stride": 1,
        "gradient_column_stride": 1,
        **options,
    }
    pointers = {"logits": f"*{dtype}", "gradient": f"*{dtype}", "targets": "*i64"}
    floats = {"foreground": "fp32", "background": "fp32", "gamma": "fp32"}
    names = list(_focal_kernel.arg_names)
    start = names.index("row_weights")
    pointers |= dict.fromkeys(names[start : names.index("num_groups")], "*fp32")
    signature = {
        name: "constexpr" if name in constants else {**pointers, **floats}.get(name, "i32")
        for name in names
    }
    aligned = [*pointers, "row_stride", "gradient_row_stride"]
    source = ASTSource(
        fn=_focal_kernel,
        signature=signature,
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    kernel = triton_compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert kernel.asm["cubin"]
    assembly = kernel.asm["ptx"]
    assert ".local" not in assembly  # no registers spilled
    if num_classes == 80:  # logits and gradient in 16-byte accesses
        assert "ld.global.v4.b32" in assembly
        assert "st.global.v4.b32" in assembly
