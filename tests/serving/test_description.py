"""The service does what its own description, /openapi.json, says: requests are made out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import negative_data_rejection, positive_data_acceptance

from tests.serving.running import (  # type: ignore[import-not-found]
    RectangleRuntime,
    Running,
    encoded,
    running,
    scene,
)

KEY = "the-key-of-the-service"
PNG = encoded(scene())
BOUNDED = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,
)


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(RectangleRuntime()) as service:
        yield service


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(RectangleRuntime(), api_key=KEY) as service:
        yield service


def check(served: Running, ask: Callable[[schemathesis.Case], object], *paths: str) -> None:
    """Make requests out of the description, for every route or for these, and ask them.

    Half of them are as they should be, and half are wrong somewhere.
    """
    description = schemathesis.openapi.from_url(f"{served.address}/openapi.json")
    operations = [result.ok() for result in description.get_all_operations()]
    chosen = [one for one in operations if not paths or one.path in paths]
    assert len(chosen) == (len(paths) or 5)
    for operation in chosen:
        for mode in schemathesis.GenerationMode:

            @BOUNDED
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask_one(case: schemathesis.Case) -> None:
                ask(case)

            with suppress(Unsatisfiable):  # a route that takes nothing can be asked nothing wrong
                ask_one()


# Bytes of the right type are no picture yet: they may be refused.
WITHOUT = [positive_data_acceptance]


def test_every_answer_is_one_that_is_described(served: Running) -> None:
    check(served, lambda case: case.call_and_validate(excluded_checks=WITHOUT))


def test_who_makes_up_a_key_is_refused_as_described(locked: Running) -> None:
    answered: list[int] = []

    def ask(case: schemathesis.Case) -> None:
        answered.append(case.call_and_validate(excluded_checks=WITHOUT).status_code)

    check(locked, ask, "/v1/detect", "/v1/model", "/metrics")
    assert len(answered) >= 20
    assert set(answered) == {401}


def test_a_picture_is_answered_as_described_whatever_else_is_asked(served: Running) -> None:
    answered: list[int] = []

    def ask(case: schemathesis.Case) -> None:
        case.body = {"file": PNG} if case.media_type == "multipart/form-data" else PNG
        response = case.call()
        case.validate_response(response, excluded_checks=[negative_data_rejection])
        answered.append(response.status_code)

    check(served, ask, "/v1/detect")
    assert answered.count(200) >= 6
    assert set(answered) <= {200, 400, 415, 422}
