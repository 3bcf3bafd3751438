"""Search by meaning: the scores of LangGraph's store in memory, with pgvector and without."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.memory import InMemoryStore

from clew.checkpointing import migrate
from clew.checkpointing.postgres import SERVICE, Database
from clew.runtime import config, embedded, errors, upkeep
from clew.runtime.store import Store
from tests.conftest import MIGRATIONS
from tests.remembering import OTHER, OWNER, count, many, owners

DIMS = 32

EMBED = f"""
import zlib

def embed(texts):
    found = []
    for text in texts:
        vector = [0.0] * {DIMS}
        for n in range(len(text) - 1):
            vector[zlib.crc32(text[n:n + 2].encode()) % {DIMS}] += 1.0
        found.append(vector)
    return found

async def slowly(texts):
    return embed(texts)

def wrong(texts):
    return [[1.0]] * len(texts)

def failing(texts):
    raise RuntimeError("sk-secret")

number = 1
"""


def embed(texts: Sequence[str]) -> list[list[float]]:
    found: list[list[float]] = []
    for text in texts:
        vector = [0.0] * DIMS
        for n in range(len(text) - 1):
            vector[zlib.crc32(text[n : n + 2].encode()) % DIMS] += 1.0
        found.append(vector)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def accelerated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that has pgvector: the embedded one."""
    home = tmp_path_factory.mktemp("vectors")
    async with embedded.serve(home, home=Path("/tmp") / f"clew-{home.name}-{id(home)}") as server:
        await migrate.apply(server.dsn, *MIGRATIONS)
        yield server.dsn


@contextlib.asynccontextmanager
async def indexed(
    db: Database, folder: Path, name: str = "embed", **index: Any
) -> AsyncGenerator[Store]:
    (folder / "vectors.py").write_text(EMBED)
    reference = name if ":" in name else f"./vectors.py:{name}"
    chosen = {"index": {"dims": DIMS, "embed": reference, **index}}
    validated = config.Store.model_validate(chosen, context={"path": folder / "langgraph.json"})
    async with Store.open(db, validated, [folder]) as found:
        yield found


@pytest.fixture(params=["any Postgres", "pgvector"])
def vector_dsn(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("dsn" if request.param == "any Postgres" else "accelerated")


sentences = st.text(alphabet="abc 天地人", max_size=12)


@settings(many, max_examples=20)
@given(
    st.lists(st.tuples(sentences, st.none() | st.just(["text"])), max_size=8),
    st.lists(sentences.filter(bool), max_size=3),
)
async def test_vectors_give_the_scores_of_the_store_in_memory(
    vector_dsn: str,
    tmp_path: Path,
    values: list[tuple[str, list[str] | None]],
    wanted: list[str],
) -> None:
    stock = InMemoryStore(index={"dims": DIMS, "embed": embed, "fields": ["text", "tags[*]"]})
    async with (
        Database.open(vector_dsn) as db,
        indexed(db, tmp_path, fields=("text", "tags[*]")) as opened,
    ):
        ours = opened.bind(next(owners))
        for number, (text, index) in enumerate(values):
            value = {"text": text, "tags": ["1" + text, "2" + text[::-1]]}
            await ours.aput(("a",), str(number), value, index=index)
            await stock.aput(("a",), str(number), value, index=index)
        for query in wanted:
            found = await ours.asearch(("a",), query=query, limit=20)
            other = await stock.asearch(("a",), query=query, limit=20)
            scores = {item.key: item.score for item in other if item.score is not None}
            assert {item.key: pytest.approx(item.score, abs=1e-5) for item in found} == scores
            assert [item.score for item in found] == sorted(
                (cast("float", item.score) for item in found), reverse=True
            )


async def test_a_server_with_pgvector_uses_it_and_others_do_without(
    accelerated: str, db: Database
) -> None:
    has = "select count(*) = 1 as has from pg_available_extensions where name = 'vector'"
    async with Database.open(accelerated) as fast:
        for database, wanted in ((fast, True), (db, (await db.fetch(SERVICE, has))[0]["has"])):
            async with database.connection() as conn:
                cursor = await conn.execute("select clew.store_accelerate() as fast")
                assert await cursor.fetchone() == {"fast": wanted}


async def test_meaning_is_searched_by_a_function_of_the_project(
    db: Database, tmp_path: Path
) -> None:
    async with indexed(db, tmp_path, "slowly", fields=("text",)) as opened:
        mine = opened.bind(OWNER)
        await mine.aput(("m",), "near", {"text": "cold coffee"})
        await mine.aput(("m",), "far", {"text": "zzz"})
        await mine.aput(("m",), "not", {"text": "cold coffee"}, index=False)
        await mine.aput(("m",), "deep", {"text": "x", "inner": "cold coffee"}, index=["inner"])
        found = await mine.asearch(("m",), query="cold coffee", limit=2)
        assert {item.key for item in found} == {"near", "deep"}
        assert found[0].score == pytest.approx(1.0)
        await mine.aput(("m",), "near", {"text": "qqq"})
        await mine.adelete(("m",), "deep")
        scores = {item.key: item.score for item in await mine.asearch(("m",), query="cold coffee")}
        assert set(scores) == {"near", "far"}
        assert all(score is not None and score < 0.5 for score in scores.values())
        assert await count(db, "store_vector") == 2


async def test_another_model_does_not_answer_for_the_first_and_reindexing_mends_it(
    db: Database, tmp_path: Path
) -> None:
    async with Store.open(db) as bare:
        await bare.bind(OWNER).aput(("m",), "before", {"text": "cold coffee"})
        await bare.bind(OTHER).aput(("m",), "hidden", {"text": "cold coffee"}, index=False)
    async with indexed(db, tmp_path) as opened:
        mine = opened.bind(OWNER)
        await mine.aput(("m",), "after", {"text": "cold coffee"})
        assert [item.key for item in await mine.asearch(("m",), query="coffee")] == ["after"]
        assert opened.embedding is not None
        assert await upkeep.reindex(db, opened.embedding, 1) == 2
        assert await upkeep.reindex(db, opened.embedding, 1) == 0
        assert len(await mine.asearch(("m",), query="coffee")) == 2
        assert await opened.bind(OTHER).asearch(("m",), query="coffee") == []
    async with indexed(db, tmp_path, fields=("text",)) as opened:
        assert await opened.bind(OWNER).asearch(("m",), query="coffee") == []
        assert opened.embedding is not None
        assert await upkeep.reindex(db, opened.embedding) == 3
        assert len(await opened.bind(OWNER).asearch(("m",), query="coffee")) == 2


async def test_a_model_that_fails_is_told_without_its_words(db: Database, tmp_path: Path) -> None:
    async with indexed(db, tmp_path, "failing") as opened:
        with pytest.raises(errors.Unavailable, match="RuntimeError") as caught:
            await opened.bind(OWNER).aput(("m",), "k", {"text": "x"})
        assert "sk-secret" not in str(caught.value)
        with pytest.raises(errors.Unavailable, match="RuntimeError"):
            await opened.bind(OWNER).asearch(("m",), query="x")
        assert await count(db) == 0
    async with indexed(db, tmp_path, "wrong") as opened:
        with pytest.raises(errors.Unavailable, match=r"length 1, store\.index\.dims says 32"):
            await opened.bind(OWNER).aput(("m",), "k", {"text": "x"})


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("number", "not a function"),
        ("nowhere:model", "not known here"),
        ("openai:text-embedding-3-small", "OpenAIError"),
    ],
)
async def test_a_model_that_cannot_be_loaded_stops_the_start(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, match: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(errors.ConfigError, match=match):
        async with indexed(db, tmp_path, name):
            pass


async def test_openai_is_named_by_provider_and_model(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        data = [
            {"object": "embedding", "index": n, "embedding": vector}
            for n, vector in enumerate(embed(asked["input"]))
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage})
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    async with server, indexed(db, tmp_path, "openai:some-model") as opened:
        mine = opened.bind(OWNER)
        await mine.aput(("m",), "k", {"text": "cold coffee"})
        [found] = await mine.asearch(("m",), query="coffee")
        assert found.key == "k"
        assert found.score is not None
        assert found.score > 0
