"""Structured logs: JSON for machines, one readable line on a terminal.

Every line written while a run or a request is in progress carries its ids, through context
variables, so that code in between need not pass them on.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from clew.runtime.telemetry import about

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR"}


class Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **about(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        ids = "".join(f" {key}={value}" for key, value in about().items())
        line = f"{at} {record.levelname.lower():7} {record.getMessage()}{ids}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(level: str, form: Literal["auto", "text", "json"]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(Text() if text else Json())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    # Chatty below warning, and what they say per request is said by us.
    for name in ("httpx", "httpcore", "watchfiles", "uvicorn.access", "sse_starlette.sse"):
        logging.getLogger(name).setLevel(logging.WARNING)
