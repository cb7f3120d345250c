# Makes .venv and installs this checkout into it, once; sourced by demo.sh and test.sh.
# Usage: source scripts/environment.sh [EXTRA]      (EXTRA: dev)

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer found; install one, or set PYTHON=/path/to/python" >&2
    return 1
}

set_up_environment() {
    local extra="$1" python stamp wanted started
    python="$(find_python)"
    if ! .venv/bin/python -c 'import sys' >/dev/null 2>&1; then
        echo "== creating .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    stamp=".venv/installed${extra:+-$extra}"
    wanted="$(cat pyproject.toml constraints.txt | cksum) $PWD"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        started=$SECONDS
        echo "== installing retina${extra:+[$extra]} and what it needs (a few minutes the first time)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
            --constraint constraints.txt --editable ".${extra:+[$extra]}"
        echo "$wanted" >"$stamp"
        echo "== installed in $((SECONDS - started)) s"
    fi
}

set_up_environment "${1:-}"
# Else every process that is started would compile all of PyTorch's Python anew, for some seconds.
unset PYTHONDONTWRITEBYTECODE
