"""Where Clew means to differ from the official server, by topic. A row that no difference falls
under has to go: `make compat` fails on it, as it does on a difference without a row."""

from collections.abc import Iterable

from tests.compat.differences import Difference
from tests.compat.divergence import Divergence
from tests.compat.rows_everywhere import ERRORS, LENIENT, OTHER, OWN
from tests.compat.rows_nouns import ASSISTANTS, CRONS, RUNS, STORE, THREADS
from tests.compat.rows_streams import PROTOCOL, SOCKETS, STREAMS, WEBHOOKS

TOPICS = {
    "Errors": (*ERRORS, *LENIENT),
    "What the servers say of themselves": OWN,
    "Threads and states": THREADS,
    "Assistants": ASSISTANTS,
    "Crons": CRONS,
    "Runs": RUNS,
    "Streams": STREAMS,
    "Protocol v2": PROTOCOL,
    "Protocol v2 over a WebSocket": SOCKETS,
    "Webhooks": WEBHOOKS,
    "The store": STORE,
    "The rest": OTHER,
}
DIVERGENCES = tuple(row for rows in TOPICS.values() for row in rows)


def unexplained(found: Iterable[Difference]) -> list[Difference]:
    return [item for item in found if not any(row.covers(item) for row in DIVERGENCES)]


def outdated(found: Iterable[Difference]) -> list[Divergence]:
    differences = list(found)
    return [row for row in DIVERGENCES if not any(row.covers(item) for item in differences)]
