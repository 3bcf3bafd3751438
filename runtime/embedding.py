"""Texts to vectors of unit length, by whatever `store.index.embed` names."""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from langgraph.store.base import ensure_embeddings, get_text_at_path, tokenize_path

from clew.checkpointing.postgres import Connection
from clew.runtime import config, errors, imports
from clew.runtime.sql import queries

WHOLE = ("$",)
_OPENAI = "https://api.openai.com/"


class Embedding:
    """The vectors of one configuration; `model` tells them from those of any other."""

    def __init__(self, embeddings: Embeddings, chosen: config.Index) -> None:
        self._embeddings = embeddings
        self._dims = chosen.dims
        self.fields = chosen.fields or WHOLE
        self.model = f"{chosen.embed} {chosen.dims} {','.join(self.fields)}"

    @classmethod
    async def load(cls, chosen: config.Index, folders: Sequence[Path]) -> "Embedding":
        # Users' code runs in a thread, where it may take its time.
        return cls(await asyncio.to_thread(_find, chosen.embed, folders), chosen)

    def texts(
        self, value: Mapping[str, Any], fields: Literal[False] | Sequence[str] | None
    ) -> list[str]:
        """What of a value is to be embedded, each text as a vector of its own."""
        if fields is False:
            return []
        found: list[str] = []
        for path in self.fields if fields is None else fields:
            tokens = path if path == "$" else tokenize_path(path)
            found += get_text_at_path(dict(value), tokens)
        return found

    async def vectors(self, texts: Sequence[str]) -> dict[str, list[float]]:
        """One call for all texts, each of them once."""
        unique = list(dict.fromkeys(texts))
        if not unique:
            return {}
        found = await self._ask(self._embeddings.aembed_documents(unique))
        if len(found) != len(unique):
            raise errors.Unavailable(
                f"store.index.embed answered {len(unique)} texts with {len(found)} vectors"
            )
        return {text: self._unit(v) for text, v in zip(unique, found, strict=True)}

    async def probes(self, queries: Sequence[str]) -> dict[str, list[float]]:
        """Queries have a way of their own, since some models embed them differently."""
        asked: dict[str, asyncio.Task[list[float]]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for query in dict.fromkeys(queries):
                    answer = self._ask(self._embeddings.aembed_query(query))
                    asked[query] = group.create_task(answer)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return {query: self._unit(task.result()) for query, task in asked.items()}

    async def _ask(self, answer: Any) -> Any:
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 - the boundary to a provider's code
            # Its text may quote a key, so not even the log gets it.
            raise errors.Unavailable(f"store.index.embed failed: {type(error).__name__}") from None

    def _unit(self, vector: Sequence[float]) -> list[float]:
        if len(vector) != self._dims:
            raise errors.Unavailable(
                f"store.index.embed makes vectors of length {len(vector)}, "
                f"store.index.dims says {self._dims}"
            )
        length = math.hypot(*vector)
        if not math.isfinite(length):
            raise errors.Unavailable("store.index.embed made a vector that is not finite")
        return [x / length for x in vector] if length else [0.0] * len(vector)


async def keep(conn: Connection, row: Mapping[str, Any], parts: Sequence[Sequence[float]]) -> None:
    """Write the vectors of an item that has none, in the transaction that wrote the item."""
    for part, vector in enumerate(parts):
        values = {**row, "part": part, "embedding": vector}
        await conn.execute(queries["put_store_vector"], values)


def _find(embed: str, folders: Sequence[Path]) -> Embeddings:
    if embed.startswith("."):
        _, found = imports.load(embed, folders)
        if not isinstance(found, Embeddings) and not callable(found):
            raise errors.ConfigError(f"store.index.embed: {embed} is not a function")
        return ensure_embeddings(cast("Any", found))
    provider, _, model = embed.partition(":")
    try:
        if provider == "openai" and model:
            return _openai(model)
        if model and find_spec("langchain") is not None:
            return ensure_embeddings(embed)
    except Exception as error:  # noqa: BLE001 - as above, at its start
        # Its text may quote a key, so not even the log gets it.
        raise errors.ConfigError(
            f"store.index.embed: {embed} cannot be used: {type(error).__name__}. "
            "Is its key in the environment, and its package installed?"
        ) from None
    raise errors.ConfigError(
        f"store.index.embed: {embed} is not known here. Name `openai:model`, a function as "
        "`./file.py:name`, or install langchain and the provider's package for `provider:model`."
    )


def _openai(model: str) -> Embeddings:
    # Endpoints that only speak like OpenAI's take texts, not OpenAI's tokens.
    base = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL") or _OPENAI
    return OpenAIEmbeddings(model=model, check_embedding_ctx_length=base.startswith(_OPENAI))
