"""The CUDA kernel without a GPU: its source in Triton's interpreter, and compiled for Hopper."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it has wheels for Linux")


@pytest.mark.parametrize(
    ("selection", "at_least"),
    [("not slow", 80), pytest.param("slow", 90, marks=pytest.mark.slow)],
)
def test_in_the_interpreter(selection: str, at_least: int) -> None:
    # Triton reads the variable when it is imported, hence a process of its own.
    tests = Path(__file__).with_name("interpreted_triton_kernel.py")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            selection,
            str(tests),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= at_least, done.stdout


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
