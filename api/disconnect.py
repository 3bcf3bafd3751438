"""A client that goes away takes its run with it, where it asked for that."""

import logging
from collections.abc import AsyncIterator

import anyio

from clew.api.auth import Caller
from clew.api.deps import Parts
from clew.runtime import errors
from clew.runtime.runs import Run

log = logging.getLogger(__name__)


async def cancels(
    clew: Parts, who: Caller, run: Run, body: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Pass the body on; cancel the run if the reader leaves before its end."""
    finished = False
    try:
        async for part in body:
            yield part
        finished = True
    finally:
        # Streams also end because this process stops: then the run goes on elsewhere.
        if not finished and not clew.leaving.is_set():
            # The response is being cancelled, and would be again at the first wait in here.
            with anyio.CancelScope(shield=True):
                await _cancel(clew, who, run)


async def _cancel(clew: Parts, who: Caller, run: Run) -> None:
    try:
        await clew.worker.cancel(
            who.principal,
            run.thread_id,
            run.run_id,
            reason="client disconnected from the run stream",
        )
    except errors.NotFound:
        log.debug("run %s was over before its reader left", run.run_id)
