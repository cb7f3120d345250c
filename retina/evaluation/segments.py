"""Running counts within segments: rows of an image, a class or both that lie together.

Letters: N rows.
"""

from __future__ import annotations

import numpy as np

from retina.structures import BoolArray, IntArray


def segment_starts(segments: IntArray) -> IntArray:
    """``(N,)`` the row where the segment of each row begins; the rows of one lie together."""
    is_first = np.ones(len(segments), dtype=np.bool_)
    is_first[1:] = np.diff(segments) != 0
    starts: IntArray = np.maximum.accumulate(np.where(is_first, np.arange(len(segments)), 0))
    return starts


def running_counts(marks: BoolArray, starts: IntArray) -> IntArray:
    """How many marks there are in each row's segment up to it."""
    sums = np.concatenate([[0], np.cumsum(marks)])
    running: IntArray = sums[1:] - sums[starts]
    return running
