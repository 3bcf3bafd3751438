"""The application with nothing behind it: enough to say what it offers, without a database."""

import argparse
import json
import sys
from typing import Any, cast

from fastapi import FastAPI

from clew.api import face, typescript
from clew.runtime.config import Config
from clew.runtime.settings import Settings
from clew.runtime.telemetry import Telemetry


class _Bare:
    """Only what is asked for while routes are put together."""

    def __init__(self) -> None:
        self.config, self.settings = Config.model_construct(), Settings.model_construct()
        self.leaving, self.telemetry = None, Telemetry()


def application() -> FastAPI:
    return face.application(cast("Any", _Bare()), cast("Any", None))


def document() -> dict[str, Any]:
    return application().openapi()


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--typescript", action="store_true", help="the TypeScript client of the sessions face"
    )


async def show(options: argparse.Namespace) -> int:
    """Print the OpenAPI document, or the TypeScript client written from it."""
    found = document()
    text = typescript.module(found) if options.typescript else json.dumps(found, indent=1) + "\n"
    sys.stdout.write(text)
    return 0
