"""The official LangGraph client, and what Clew has beyond it.

    client = get_client(url="http://localhost:2024")
    session = await client.sessions.create(assistant_id="agent")
    async for part in client.sessions.send(session["thread_id"], content="Hello"):
        ...
    await client.sessions.undo(session["thread_id"])

`threads`, `runs`, `assistants`, `crons` and `store` are the official ones, unchanged. More in
docs/client.md.
"""

from collections.abc import Mapping
from typing import Self

import httpx
import langgraph_sdk
from langgraph_sdk._shared.utilities import NOT_PROVIDED
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient

from clew.api import client_faces as faces
from clew.api import client_sessions
from clew.api.client_wire import Awaited, Blocking

# Which attribute has which routes; the OpenAPI document names each operation by them.
FACES: Mapping[str, type] = {
    "sessions": client_sessions.SessionRoutes,
    "checkpoints": faces.CheckpointRoutes,
    "shares": faces.ShareRoutes,
    "interrupts": faces.InterruptRoutes,
    "templates": faces.TemplateRoutes,
    "webhooks": faces.WebhookRoutes,
    "owners": faces.OwnerRoutes,
}


class Client(LangGraphClient):
    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__(client)
        wire = Awaited(self.http)
        self.sessions = client_sessions.Sessions(wire)
        self.checkpoints = faces.Checkpoints(wire)
        self.shares = faces.Shares(wire)
        self.interrupts = faces.Interrupts(wire)
        self.templates = faces.Templates(wire)
        self.webhooks = faces.Webhooks(wire)
        self.owners = faces.Owners(wire)

    async def __aenter__(self) -> Self:
        return self


class SyncClient(SyncLangGraphClient):
    def __init__(self, client: httpx.Client) -> None:
        super().__init__(client)
        wire = Blocking(self.http)
        self.sessions = client_sessions.SyncSessions(wire)
        self.checkpoints = faces.SyncCheckpoints(wire)
        self.shares = faces.SyncShares(wire)
        self.interrupts = faces.SyncInterrupts(wire)
        self.templates = faces.SyncTemplates(wire)
        self.webhooks = faces.SyncWebhooks(wire)
        self.owners = faces.SyncOwners(wire)

    def __enter__(self) -> Self:
        return self


def get_client(
    *,
    url: str = "http://localhost:2024",
    api_key: str | None = NOT_PROVIDED,
    headers: Mapping[str, str] | None = None,
    timeout: float | tuple[float | None, float | None, float | None, float | None] | None = None,
) -> Client:
    """As `langgraph_sdk.get_client`: without `api_key` the one of LANGGRAPH_API_KEY is sent."""
    official = langgraph_sdk.get_client(url=url, api_key=api_key, headers=headers, timeout=timeout)
    return Client(official.http.client)


def get_sync_client(
    *,
    url: str = "http://localhost:2024",
    api_key: str | None = NOT_PROVIDED,
    headers: Mapping[str, str] | None = None,
    timeout: float | tuple[float | None, float | None, float | None, float | None] | None = None,
) -> SyncClient:
    """As `get_client`, for code that does not await."""
    official = langgraph_sdk.get_sync_client(
        url=url, api_key=api_key, headers=headers, timeout=timeout
    )
    return SyncClient(official.http.client)
