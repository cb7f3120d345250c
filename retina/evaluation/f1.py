"""F1, and the score threshold that gives the highest: the one that every part of a report tells.

Letters: N detections, S segments: images, or classes, or all together.
"""

from __future__ import annotations

import numpy as np

from retina.evaluation.matching import Matching
from retina.evaluation.segments import running_counts, segment_starts
from retina.structures import FloatArray, IntArray


def f1(true: IntArray, false: IntArray, num_objects: IntArray) -> FloatArray:
    """The harmonic mean of precision and recall; 0 with neither detection nor object."""
    values: FloatArray = 2 * true / np.maximum(true + false + num_objects, 1)
    return values


def best_f1(
    segments: IntArray, scores: FloatArray, matching: Matching, num_objects: IntArray
) -> tuple[FloatArray, FloatArray]:
    """The highest F1 of each segment over all score thresholds, and the highest such threshold.

    Args:
        segments: ``(N,)`` 0 … S-1, what each detection belongs to.
        scores: ``(N,)``.
        matching: of the detections.
        num_objects: ``(S,)`` that are to be found.

    Returns:
        ``(S,)`` each. F1 is NaN without objects, the threshold also where nothing is found.
    """
    order = np.lexsort((-scores, segments))
    segments, scores = segments[order], scores[order]
    starts = segment_starts(segments)
    true = running_counts(matching.is_true[order], starts)
    false = running_counts(matching.is_false[order], starts)
    values = f1(true, false, num_objects[segments])
    # A threshold cannot part equal scores: only the last of them is one.
    is_last = np.ones(len(order), dtype=np.bool_)
    is_last[:-1] = (np.diff(segments) != 0) | (np.diff(scores) != 0)
    rows = np.flatnonzero(is_last & (values > 0))
    rows = rows[np.lexsort((-scores[rows], -values[rows], segments[rows]))]
    found, first = np.unique(segments[rows], return_index=True)
    best = np.where(num_objects > 0, 0.0, np.nan)
    at = np.full(len(num_objects), np.nan)
    best[found], at[found] = values[rows[first]], scores[rows[first]]
    return best, at
