"""The operators do in ONNX what they do in torch, where equal values would let them differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from retina.export.onnx_format import OPSET, _translations
from retina.export.tracing import quiet
from retina.modeling.postprocess import best_pairs
from retina.runtime.operators import NO_CHANCE, best, pairs, stays

COUNT = 12


class Operators(nn.Module):
    def forward(
        self, logits: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor
    ) -> tuple[Tensor, ...]:
        return (
            best(scores, 5),
            *pairs(logits, COUNT),
            stays(boxes, scores, labels, 3, 0.5, 0.05, 8),
        )


def given(num_anchors: int) -> tuple[Tensor, ...]:
    """Values of which many are equal."""
    generator = torch.Generator().manual_seed(num_anchors)
    logits = torch.randint(-2, 3, (2, num_anchors, 3), generator=generator).float()
    corners = torch.randint(0, 6, (2, 40, 2), generator=generator).float()
    sides = torch.randint(3, 9, (2, 40, 2), generator=generator).float()
    scores = torch.randint(0, 7, (2, 40), generator=generator).float() / 8
    labels = torch.randint(0, 3, (2, 40), generator=generator)
    return logits, torch.cat([corners, corners + sides], dim=2), scores, labels


def test_of_equal_values_onnx_takes_the_same() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    values = given(30)
    with quiet():
        program = torch.export.export(Operators(), values)
        model = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=_translations(),
            verbose=False,
        )
    assert model is not None
    session = onnxruntime.InferenceSession(model.model_proto.SerializeToString())
    names = [one.name for one in session.get_inputs()]
    found = session.run(
        None, {name: value.numpy() for name, value in zip(names, values, strict=True)}
    )
    *wanted, stay = Operators()(*values)
    assert stay.sum(dim=1).tolist() == [8, 8]
    left = torch.where(torch.from_numpy(found[-1]), values[2], -1.0)  # of each class the best 8
    best_left = best(left, 8).sort(dim=1).values
    assert best_left.tolist() == [row.nonzero().flatten().tolist() for row in stay]
    for name, ours, theirs in zip(
        ("best", "logits", "rows", "labels"), wanted, found[:-1], strict=True
    ):
        assert torch.equal(ours, torch.from_numpy(theirs)), name


def test_too_few_pairs_are_filled_up_with_such_as_are_none() -> None:
    logits = given(2)[0]
    values, rows, labels = pairs(logits, COUNT)
    wanted = best_pairs(logits, logits.amax(dim=2), COUNT)
    assert values.shape == rows.shape == labels.shape == (2, COUNT)
    for ours, theirs in zip((values, rows, labels), wanted, strict=True):
        assert torch.equal(ours[:, :6], theirs)
    assert (values[:, 6:] == NO_CHANCE).all()
    assert not values[:, 6:].sigmoid().any()
