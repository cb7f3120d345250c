"""The routes of the service and their description, its OpenAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from retina.serving.access import OPEN_PATHS, Access
from retina.serving.answers import (
    DetectAnswer,
    HealthAnswer,
    HealthStatus,
    ModelAnswer,
    Problem,
    model_answer,
)
from retina.serving.body import FORM_TYPE, PART, PICTURE_TYPES
from retina.serving.limits import Refusal
from retina.serving.metrics import CONTENT_TYPE
from retina.serving.page import page
from retina.serving.responses import Guard, Refused
from retina.serving.service import DetectOptions, Service

_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "description": "The bytes of a JPEG, PNG, WebP, BMP or TIFF picture, or a form with it.",
    "content": {
        **{kind: {"schema": _BINARY} for kind in PICTURE_TYPES},
        FORM_TYPE: {
            "schema": {
                "type": "object",
                "properties": {PART: _BINARY},
                "required": [PART],
            }
        },
    },
}
_PROBLEMS = {
    400: "The body is empty, breaks off, or is no form as it should be.",
    401: "The key is missing or wrong.",
    403: "Without a key, only this machine and its own page are served.",
    408: "The body came too slowly.",
    413: "Too many bytes or pixels.",
    415: "No picture of a format that is taken.",
    422: "The query is wrong, or the picture cannot be decoded.",
    429: "Too many requests are waiting.",
    500: "The detector failed.",
    503: "The service is stopping, or out of memory.",
    504: "No answer in time.",
}


def make_app(service: Service, *, api_key: str | None = None) -> ASGIApp:
    """The service as an ASGI application.

    Args:
        service: answers.
        api_key: what requests must give; None serves only this machine.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Retina",
        version=service.version,
        description=f"Finds objects in pictures with the detector {service.name}.",
        lifespan=lifespan,
        docs_url=None,  # its pages would load scripts from elsewhere
        redoc_url=None,
    )
    _add_detect(app, service)
    _add_facts(app, service)
    _add_health(app, service)
    _add_page(app)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _wrong_query)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _failed)
    if api_key is not None:
        _describe_key(app)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    return Guard(app, access=Access(api_key), metrics=service.metrics, paths=paths)


def _add_detect(app: FastAPI, service: Service) -> None:
    pictures = {kind: {"schema": _BINARY} for kind in ("image/jpeg", "image/png")}

    @app.post(
        "/v1/detect",
        summary="Find objects in a picture",
        response_model=DetectAnswer,
        responses=_problems(*_PROBLEMS) | {200: {"content": pictures}},
        openapi_extra={"requestBody": _BODY},
    )
    async def detect(request: Request, options: Annotated[DetectOptions, Query()]) -> Response:
        answer = await service.detect(request, options)
        if isinstance(answer, bytes):
            return Response(answer, media_type=f"image/{options.output}")
        return Response(answer.model_dump_json(), media_type="application/json")


def _add_facts(app: FastAPI, service: Service) -> None:
    facts = model_answer(service.runtime, service.name, service.version, service.limits)

    @app.get("/v1/model", summary="The detector", responses=_problems(401, 403))
    async def model() -> ModelAnswer:
        return facts

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses=_problems(401, 403) | {200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_health(app: FastAPI, service: Service) -> None:
    responses = _problems(403) | {503: {"model": HealthAnswer, "description": "Not any more."}}

    def told(holds: bool, status: HealthStatus, otherwise: HealthStatus) -> JSONResponse:
        answer = HealthAnswer(status=status if holds else otherwise)
        return JSONResponse(answer.model_dump(), status_code=200 if holds else 503)

    @app.get(
        "/health/live",
        summary="Whether the process works; if not, start it anew",
        response_model=HealthAnswer,
        responses=responses,
    )
    async def live() -> JSONResponse:
        return told(service.is_alive, "alive", "broken")

    @app.get(
        "/health/ready",
        summary="Whether requests are taken",
        response_model=HealthAnswer,
        responses=responses,
    )
    async def ready() -> JSONResponse:
        return told(not service.admission.is_stopping, "ready", "stopping")


def _add_page(app: FastAPI) -> None:
    html, policy = page()

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _describe_key(app: FastAPI) -> None:
    description = app.openapi()  # it is made once
    description.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in description["paths"].items():
        if path not in OPEN_PATHS:
            for operation in operations.values():
                operation["security"] = [{"bearer": []}, {"header": []}]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": Problem, "description": _PROBLEMS[status]} for status in sorted(statuses)
    }


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return Refused(error)


async def _wrong_query(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the query"
    return Refused(Refusal(422, f"{where}: {first['msg']}"))


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = Refused(Refusal(error.status_code, f"{error.detail}; see /openapi.json"))
    answer.headers.update(error.headers or {})
    return answer


async def _failed(_: Request, error: Exception) -> Response:
    """The traceback goes to the log by itself."""
    return Refused(Refusal(500, "the detector failed on this picture; the log says why"))
