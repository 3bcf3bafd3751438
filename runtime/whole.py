"""Whole states of events, rendered from the checkpoints that have them.

Stored in full at every superstep they would outweigh the text of a long session hundreds of times.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json

from clew.checkpointing.postgres import Principal
from clew.checkpointing.saver import Saver
from clew.runtime import blocks, wire
from clew.runtime.events import Ref

Json = dict[str, Any]

# An event can be in the log a moment before its checkpoint is: with durability `async` the one
# does not wait for the other.
PATIENCE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
REMEMBERED = 16


class Whole:
    def __init__(self, saver: Saver) -> None:
        self._saver = saver
        self._recent: OrderedDict[tuple[int, str, str, str], Json] = OrderedDict()

    async def render(
        self,
        who: Principal,
        thread_id: str,
        ref: Ref,
        rest: bytes,
        *,
        comes: Callable[[], Awaitable[bool]],
        v2: bool,
    ) -> bytes | None:
        """The event's data, or None where there is no such checkpoint: it was pruned, or its run
        crashed before it was written and has done that step again since. `comes`: whether it may
        still be written, which the database knows, and no clock of ours."""
        values = await self._values(who, thread_id, ref, comes)
        if values is None:
            return None
        state = {**ref.blanks, **{key: values[key] for key in ref.keys if key in values}}
        if v2:
            state = blocks.plain(state)
        data: Json = from_json(rest) if rest else {}
        if not ref.path:
            return wire.encode({**state, **data})
        inner = data
        for step in ref.path[:-1]:
            inner = inner[step]
        inner[ref.path[-1]] = state
        return wire.encode(data)

    async def _values(
        self, who: Principal, thread_id: str, ref: Ref, comes: Callable[[], Awaitable[bool]]
    ) -> Json | None:
        key = (who.owner_from, thread_id, ref.ns, ref.checkpoint_id)
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        saver = self._saver.bind(principal=who)
        configurable = {
            "thread_id": thread_id,
            "checkpoint_ns": ref.ns,
            "checkpoint_id": ref.checkpoint_id,
        }
        values = await self._look(saver, configurable, key)
        if values is None:
            # Where it does not come any more it may have come since we looked.
            for pause in PATIENCE if await comes() else (0.0,):
                await asyncio.sleep(pause)
                values = await self._look(saver, configurable, key)
                if values is not None:
                    break
        return values

    async def _look(self, saver: Saver, configurable: Json, key: tuple[int, str, str, str]) -> Any:
        found = await saver.aget_tuple({"configurable": configurable})
        if found is None:
            return None
        values = found.checkpoint["channel_values"]
        self._recent[key] = values
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return values
