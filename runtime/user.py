"""Who asked, as a graph finds it in its config: `["identity"]` and `.identity` alike, as graphs
written for the official server expect it and `Runtime.server_info.user` takes it."""

from collections.abc import Sequence
from typing import Any


class User(dict[str, Any]):
    """What an authentication handler returned, by key and by name."""

    @property
    def identity(self) -> str:
        return self["identity"]

    @property
    def display_name(self) -> str:
        return self.get("display_name") or self["identity"]

    @property
    def is_authenticated(self) -> bool:
        return bool(self.get("is_authenticated", True))

    @property
    def permissions(self) -> Sequence[str]:
        return self.get("permissions") or []

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
