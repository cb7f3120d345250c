"""``retina serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retina.cli.options import (
    Detector,
    Device,
    MergeOption,
    NoFullImage,
    Overlap,
    Precision,
    TestTime,
    Tile,
    chosen_precision,
    views_given,
)
from retina.cli.output import make_console, print_lines

API_KEY = "RETINA_API_KEY"


def command(
    detector: Detector,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes one that is free.")
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar=API_KEY,
            show_envvar=False,
            help=f"What requests must give, needed for another --host. Better in {API_KEY}: "
            "command lines are seen by all users of a machine.",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", min=1, help="Pictures or tiles that run together, at most."),
    ] = 8,
    max_wait_ms: Annotated[
        float,
        typer.Option("--max-wait-ms", min=0, help="How long a picture waits for others, at most."),
    ] = 5.0,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Requests held at a time; more are refused.")
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.1, help="Seconds for a request, half of them for its body."
        ),
    ] = 30.0,
    tile: Tile = None,
    overlap: Overlap = None,
    no_full_image: NoFullImage = False,
    test_time: TestTime = None,
    merge: MergeOption = "nms",
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Serve a detector over HTTP, with a page to drop pictures on.

    POST a picture to /v1/detect and get its objects as JSON; /openapi.json describes the rest. No
    picture is kept or written anywhere. A signal ends it when all that is held is answered, within
    ten seconds.

    With --tile and --test-time each picture is looked at as `retina predict` does; it takes as many
    times longer, so give a --timeout for it.

    Example: `retina serve runs/demo/checkpoints/best.safetensors`

    Example: `curl -F file=@photo.jpg http://127.0.0.1:8000/v1/detect`
    """
    _check_packages()
    _check_access(host, api_key)
    from retina import __version__
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import taken_for
    from retina.prediction.predictor import load
    from retina.serving.app import make_app
    from retina.serving.limits import Limits
    from retina.serving.server import address_of, bind, serve
    from retina.serving.service import Service
    from retina.wording import counted

    console = make_console()
    views = views_given(tile, overlap, no_full_image, test_time, merge)
    source = detector_given(detector, "DETECTOR")
    listening = bind(host, port)  # before the detector is loaded: that takes longer
    predictor = load(detector, device=device, precision=chosen_precision(precision))
    runtime = predictor.looking_at(views, batch_size=batch_size).runtime
    print_lines(console, *taken_for(source))
    name = source.name if isinstance(source, Path) else str(source)
    service = Service(
        runtime,
        name=name,
        version=__version__,
        limits=Limits(queue=queue, timeout=timeout, body_timeout=timeout / 2),
        batch_size=batch_size,
        max_wait=max_wait_ms / 1000,
    )
    service.warm_up()
    seen = f", looking at {views.describe()}" if views else ""
    line = (
        f"{name} ({counted(len(runtime.categories), 'class')}{seen}) at {address_of(listening)}, "
        f"{'with a key' if api_key else 'for this machine alone'}; Ctrl-C ends it"
    )
    number = serve(
        make_app(service, api_key=api_key),
        service,
        listening,
        on_start=lambda: print_lines(console, line),
    )
    raise SystemExit(128 + number)


def _check_access(host: str, api_key: str | None) -> None:
    from retina.errors import UserError
    from retina.serving.access import is_loopback

    if api_key is not None and not (api_key and all("!" <= sign <= "~" for sign in api_key)):
        raise UserError(
            "--api-key: a key is letters, digits and signs of ASCII without spaces; give another "
            f"(the variable {API_KEY} counts, too)"
        )
    if api_key is None and not is_loopback(host):
        raise UserError(
            f"--host {host}: others could use the detector from there; give an --api-key (or set "
            f"{API_KEY}), or stay on 127.0.0.1"
        )


def _check_packages() -> None:
    from importlib.util import find_spec

    from retina.errors import UserError

    needed = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    missing = [name for name in needed if find_spec(name) is None]
    noun = "package" if len(missing) == 1 else "packages"
    if missing:
        raise UserError(
            f"retina serve needs the {noun} {', '.join(missing)}; "
            "pip install 'retina-detector[serve]'"
        )
