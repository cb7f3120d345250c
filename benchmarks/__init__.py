"""The measurements: each program runs by itself, or all of them by ``python -m benchmarks``."""

import sys
from pathlib import Path

# The programs are scripts, which import each other by their plain names.
sys.path.insert(0, str(Path(__file__).parent))
