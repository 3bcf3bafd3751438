"""A JSON response that can show any value a graph may hold."""

from collections.abc import Mapping

from fastapi.responses import Response

from clew.runtime import wire


class Reply(Response):
    media_type = "application/json"

    def __init__(
        self, content: object, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(wire.encode(content), status_code, headers)
