"""Words of any language find what was put into the long-term memory."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from clew.checkpointing.postgres import Database
from clew.runtime.store import Store
from tests.remembering import OWNER


@pytest_asyncio.fixture
async def opened(db: Database) -> AsyncIterator[Store]:
    async with Store.open(db) as found:
        yield found


@pytest.fixture
def mine(opened: Store) -> Store:
    return opened.bind(OWNER)


async def test_words_of_any_language_are_found_the_fullest_match_first(mine: Store) -> None:
    memories = {
        "zh": {"text": "用户昨天说他非常喜欢吃四川火锅，尤其是麻辣的。"},
        "zh2": {"deep": [{"note": "下周去北京出差"}]},
        "en": {"text": "The user prefers dark roast coffee"},
        "en2": {"text": "Coffee was cold"},
        "ja": {"text": "東京タワーに行きたい"},
        "ru": {"text": "Пользователь живёт в Москве"},
    }
    for key, value in memories.items():
        await mine.aput(("m",), key, value)

    async def find(query: str, **more: Any) -> list[str]:
        return [item.key for item in await mine.asearch(("m",), query=query, **more)]

    assert await find("火锅") == ["zh"]
    assert await find("京") == ["ja", "zh2"] or await find("京") == ["zh2", "ja"]
    assert await find("北京") == ["zh2"]
    assert await find("他喜欢吃什么火锅") == ["zh"]
    assert (await find("dark COFFEE"))[0] == "en"
    assert set(await find("dark COFFEE")) == {"en", "en2"}
    assert await find("москве") == ["ru"]
    assert await find("タワー") == ["ja"]
    assert await find("tea") == []
    assert await find("？！") == []
    assert await find("coffee", limit=1, offset=1) == [(await find("coffee"))[1]]
    assert await find("coffee", filter={"text": "Coffee was cold"}) == ["en2"]
    scores = [item.score for item in await mine.asearch(("m",), query="dark coffee")]
    assert scores == [1.0, 0.5]
    await mine.aput(("m",), "zh", {"text": "用户现在吃素"})
    assert await find("火锅") == []


async def test_index_says_what_is_searched(mine: Store) -> None:
    value = {"title": "alpha", "parts": [{"text": "beta"}, {"text": "gamma"}], "rest": "delta"}
    await mine.aput(("m",), "none", value, index=False)
    await mine.aput(("m",), "some", value, index=["title", "parts[*].text"])
    await mine.aput(("m",), "all", value)
    for query, wanted in {"alpha": 2, "gamma": 2, "delta": 1}.items():
        assert len(await mine.asearch(("m",), query=query)) == wanted
    assert len(await mine.asearch(("m",))) == 3


async def test_a_long_item_is_kept_whole_and_found_by_its_beginning(mine: Store) -> None:
    text = "".join(chr(0x4E00 + n % 20000) for n in range(0, 200_000 * 7, 7))
    await mine.aput(("m",), "long", {"text": "开头" + text, "and": "x" * 50_000})
    assert [item.key for item in await mine.asearch(("m",), query="开头")] == ["long"]
