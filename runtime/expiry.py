"""Which expiry a new session gets: its own, else its agent's, else the server's."""

import json
from datetime import timedelta
from typing import Any, cast

from clew.runtime import errors
from clew.runtime.assistants import Assistant
from clew.runtime.config import Config
from clew.runtime.sessions import Ttl
from clew.runtime.settings import Settings

# An assistant says it in its metadata: `{"session_ttl": {"ttl": <minutes>, "strategy": "delete"}}`.
KEY = "session_ttl"


def parse(given: Any, settings: Settings) -> Ttl:
    """The wire's form: minutes, or an object of `ttl` in minutes, `strategy`, `sliding` and
    `waiting` in minutes; null never expires."""
    sliding = settings.session_expiry == "sliding"
    if given is None:
        return Ttl(None)
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = {"ttl": given}
    if not isinstance(given, dict):
        raise errors.Invalid("ttl: must be a number of minutes or an object")
    fields = cast("dict[str, Any]", given)
    if unknown := set(fields) - {"ttl", "strategy", "sliding", "waiting"}:
        raise errors.Invalid(f"ttl: unknown field {min(unknown)}")
    strategy = fields.get("strategy") or "delete"
    if strategy not in ("delete", "keep_latest"):
        raise errors.Invalid("ttl.strategy: must be delete or keep_latest")
    moves = fields.get("sliding", sliding)
    if not isinstance(moves, bool):
        raise errors.Invalid("ttl.sliding: must be true or false")
    return Ttl(_minutes(fields, "ttl"), moves, strategy, _minutes(fields, "waiting"))


def policy(settings: Settings, config: Config, assistant: Assistant | None = None) -> Ttl:
    """What a session gets that says nothing itself."""
    if assistant is not None and KEY in assistant.metadata:
        return parse(assistant.metadata[KEY], settings)
    sliding = settings.session_expiry == "sliding"
    stock = config.checkpointer and config.checkpointer.ttl
    if stock and stock.default_ttl is not None:
        return Ttl(stock.default_ttl, sliding, stock.strategy)
    return Ttl(settings.session_ttl, sliding, stock.strategy if stock else "delete")


def json_object(name: str, text: str | None) -> dict[str, Any] | None:
    """A query parameter that is a JSON object."""
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise errors.Invalid(f"{name}: must be a JSON object")
    return cast("dict[str, Any]", found)


def _minutes(fields: dict[str, Any], name: str) -> timedelta | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise errors.Invalid(f"ttl.{name}: must be a number of minutes")
    return timedelta(minutes=value)
