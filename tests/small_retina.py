"""``python -m tests.small_retina …`` is `small_retina` as a program."""

import sys

from tests.processes import small_retina  # type: ignore[import-not-found]

if __name__ == "__main__":
    small_retina(*sys.argv[1:])
