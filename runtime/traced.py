"""A graph's stream, with what all of its parts do told beside it: the stream mode `events`, in the
words of LangChain's `astream_events`."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel


async def stream(
    graph: Pregel[Any, Any, Any, Any],
    given: Any,
    config: RunnableConfig,
    tell: Callable[[Any], None],
    **options: Any,
) -> AsyncIterator[Any]:
    """What `graph.astream` yields. Every event is told but those that only carry it."""
    root = str(config.get("run_id"))
    events: Any = graph.astream_events(given, config, version="v2", **options)
    async with aclosing(events):
        async for event in cast("AsyncIterator[dict[str, Any]]", events):
            if event["run_id"] == root and event["event"] == "on_chain_stream":
                yield event["data"]["chunk"]
            else:
                tell(event)
