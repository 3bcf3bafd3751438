"""Rows whose bodies are sealed, opened in place whatever query they came from.

A row says by its columns what it holds: an item, a write, or a checkpoint with all its items and
writes. So whoever reads rows need not know of encryption, only the way to the database does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import DictRow

from clew.checkpointing import encryption, manifest
from clew.checkpointing.encryption import Sealer
from clew.checkpointing.path import Fetch
from clew.checkpointing.rows import Item, items_of


def bodies_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Every body in these rows."""
    for row in rows:
        if row.get("body") is not None:
            yield row["body"]
        yield from row.get("bodies") or ()
        yield from row.get("writes") or ()


def open_rows(sealers: Mapping[int, Sealer], rows: Iterable[DictRow]) -> None:
    """Put the plain bodies in the place of the sealed ones."""
    for row in rows:
        if row.get("body") is not None:
            place = _place_of_item(row) if "number" in row else _place_of_write(row)
            row["body"] = encryption.open_body(sealers, row["body"], place)
        if row.get("bodies"):
            where = items_of(manifest.absolute(row["ranges"], row["lineage_id"]))
            row["bodies"] = [
                encryption.open_body(sealers, body, encryption.item(*item))
                for body, item in zip(row["bodies"], where, strict=True)
            ]
        if row.get("writes"):
            row["writes"] = [
                encryption.open_body(
                    sealers,
                    body,
                    _place(row["checkpoint_id"], task_id, slot, row["ns"], channel),
                )
                for body, task_id, slot, channel in zip(
                    row["writes"], row["tasks"], row["slots"], row["channels"], strict=True
                )
            ]


def seal_items(
    sealer: Sealer, streams: Sequence[int], numbers: Sequence[int], bodies: Sequence[bytes]
) -> list[bytes]:
    """New items of the sealer's lineage."""
    return [
        sealer.seal(body, encryption.item(sealer.lineage_id, stream, number))
        for stream, number, body in zip(streams, numbers, bodies, strict=True)
    ]


def seal_writes(sealer: Sealer, params: Mapping[str, Any]) -> list[bytes]:
    """New writes, from the parameters of the statement that stores them."""
    return [
        sealer.seal(
            body,
            _place(params["checkpoint_id"], params["task_id"], slot, params["ns"], channel),
        )
        for body, slot, channel in zip(
            params["bodies"], params["slots"], params["channels"], strict=True
        )
    ]


class Unsealer:
    """Opens what one session's lines hold, with keys that were fetched before."""

    def __init__(self, sealers: Mapping[int, Sealer]) -> None:
        self._sealers = sealers

    def __call__(self, body: bytes, item: Item) -> bytes:
        """The plain body of an item."""
        return encryption.open_body(self._sealers, body, encryption.item(*item))

    def over(self, fetch: Fetch) -> Fetch:
        """The same fetch, of plain rows."""

        async def opened(query: LiteralString, params: Mapping[str, Any]) -> list[DictRow]:
            rows = await fetch(query, params)
            open_rows(self._sealers, rows)
            return rows

        return opened


def _place_of_item(row: Mapping[str, Any]) -> bytes:
    return encryption.item(row["lineage_id"], row["stream"], row["number"])


def _place_of_write(row: Mapping[str, Any]) -> bytes:
    return _place(row["checkpoint_id"], row["task_id"], row["slot"], row["ns"], row["channel"])


def _place(checkpoint_id: Any, task_id: Any, slot: int, ns: str, channel: str) -> bytes:
    return encryption.write(_uuid(checkpoint_id), _uuid(task_id), slot, ns, channel)


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
