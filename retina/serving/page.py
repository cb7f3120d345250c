"""The page at ``/``: its markup, style and scripts in one file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib

import jinja2

SCRIPTS = ("elements", "model", "picture", "thresholds", "result", "page")
"""The scripts of the page, each using only those before it; together they are one script."""


def page() -> tuple[str, str]:
    """The page, and the policy that allows only its own script and style, by their hashes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.serving"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style = _source(environment, "page.css")
    script = "\n".join(_source(environment, f"scripts/{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    html = environment.get_template("page.html").render(style=style, script=script)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return html, policy


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
