from __future__ import annotations

import itertools

import numpy as np

from retina.prediction.palette import _linear, _oklab, color_of, text_color_on


def _distance(one: int, other: int) -> float:
    lab = _oklab(np.array([color_of(one), color_of(other)]))
    return float(np.linalg.norm(lab[0] - lab[1]))


def test_oklab_agrees_with_its_authors_values() -> None:
    # Ottosson 2020: white is (1, 0, 0); sRGB red is (0.628, 0.225, 0.126).
    np.testing.assert_allclose(
        _oklab(np.array([[255, 255, 255], [255, 0, 0]])),
        [[1, 0, 0], [0.62796, 0.22486, 0.12585]],
        atol=1e-4,
    )


def test_colours_of_a_few_classes_are_far_apart_and_of_eighty_still_differ() -> None:
    few = [_distance(a, b) for a, b in itertools.combinations(range(10), 2)]
    many = [_distance(a, b) for a, b in itertools.combinations(range(80), 2)]
    assert min(few) > 0.15  # sRGB red and orange are 0.19 apart
    assert min(many) > 0.04


def test_colours_are_stable_and_go_round() -> None:
    assert [color_of(label) for label in range(3)] == [(255, 0, 255), (0, 240, 0), (90, 30, 255)]
    assert color_of(128) == color_of(0)


def test_text_on_every_colour_has_a_contrast_of_four_and_a_half() -> None:
    for label in range(128):
        background, text = (
            float(_linear(np.array(color)) @ (0.2126, 0.7152, 0.0722))
            for color in (color_of(label), text_color_on(color_of(label)))
        )
        lighter, darker = max(background, text), min(background, text)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG AA
