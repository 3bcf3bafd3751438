"""`python -m tests.routes`: write docs/api.md and docs/client.ts from the routes that there are."""

from pathlib import Path

from fastapi import FastAPI

from clew.api import typescript
from clew.api.outline import application

FILE = Path(__file__).parents[1] / "docs" / "api.md"
CLIENT = FILE.with_name("client.ts")

_HEAD = """# Routes

Two faces over the same functions: the Agent Server protocol, which the official LangGraph clients
speak, and the sessions API under `/sessions` for what that protocol has no word for. Bodies are
JSON; errors are told in [errors.md](errors.md); the OpenAPI document is at `/openapi.json`. Streams
are server-sent events with a heartbeat comment every five seconds.

This page is written by `python -m tests.routes`.
"""


def described(app: FastAPI) -> str:
    """The page: each route with the first paragraph of what it says of itself."""
    groups: dict[str, list[str]] = {}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["system"])[0]
            about = operation.get("description") or operation["summary"]
            about = " ".join(about.split("\n\n")[0].split()).replace("|", "\\|")
            groups.setdefault(tag, []).append(f"| {method.upper()} | `{path}` | {about} |")
    socket = "/threads/{thread_id}/stream/events"
    groups["protocol v2"].append(f"| WS | `{socket}` | Commands in, answers and events out. |")
    parts = [_HEAD]
    for tag, lines in groups.items():
        table = "\n".join(["| | route | |", "|---|---|---|", *lines])
        parts.append(f"## {tag}\n\n{table}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(described(application()))
    CLIENT.write_text(typescript.module(application().openapi()))
