#!/usr/bin/env bash
# Is everything correct on this machine's GPU? One unattended run of a few minutes: a table, and
# runs/gpu_check/gpu_check.json. It needs no network and no pytest.
#
#   scripts/gpu_check.sh [--data DIR] [--output DIR] [--only TEXT] [--benchmarks] [--cpu]
#
# --data is a copy of the BCCD data set (JPEGImages, Annotations, ImageSets); without it, data is
# generated. --benchmarks times the hot paths beside their peers, too. --cpu tries out what can run
# without a GPU. It uses .venv where there is one; elsewhere PYTHON, or python3, with the packages on
# its PYTHONPATH. Exit codes: 0 all passed, 1 a check failed, 2 wrong arguments, 3 there is no GPU.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"

python="${PYTHON:-}"
if [ -z "$python" ]; then
    python=python3
    if [ -x "$here/.venv/bin/python" ]; then python="$here/.venv/bin/python"; fi
fi
exec "$python" "$here/scripts/gpu_check.py" "$@"
