#!/usr/bin/env bash
# Every check, from a fresh checkout: makes .venv, installs, then style, types, structure, spelling,
# documentation and tests. `scripts/test.sh --all` runs the slow tests too; further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

selection=(-m "not slow")
if [ "${1:-}" = "--all" ]; then
    selection=()
    shift
fi

source scripts/environment.sh dev
bin=.venv/bin
started=$SECONDS

echo "== ruff"
"$bin/ruff" check .
"$bin/ruff" format --check .
echo "== mypy"
"$bin/mypy"
echo "== import-linter"
"$bin/lint-imports" --no-logo
echo "== codespell"
"$bin/codespell"
echo "== documentation"
"$bin/python" scripts/build_site.py
echo "== pytest"
# A process for each core, up to eight; one that has done its part of the tests takes of the others.
cores=$(getconf _NPROCESSORS_ONLN)
"$bin/python" -m pytest -n "$((cores < 8 ? cores : 8))" --dist worksteal "${selection[@]}" "$@"
echo "every check passed in $((SECONDS - started)) s, without the installation"
