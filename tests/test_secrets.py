"""What looks like a secret, and what only sounds like one."""

from typing import Any

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from clew.checkpointing import secrets
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.saver import Saver
from clew.checkpointing.secrets import REDACTED


@pytest.mark.parametrize(
    "key",
    [
        *("api_key", "apiKey", "APIKey", "X-Api-Key", "openai_api_key", "OPENAI_API_KEY", "apikey"),
        *("password", "db_password", "dbPassword", "passwd", "passphrase", "secret", "secret_key"),
        *("client_secret", "CLIENT_SECRET_VALUE", "token", "access_token", "refreshToken", "jwt"),
        *("authorization", "Proxy-Authorization", "Set-Cookie", "private_key", "credentials"),
        *("aws_secret_access_key", "encryption_key", "密码", "数据库密码"),
    ],
)
def test_a_secret_key_is_known_by_its_words(key: str) -> None:
    assert secrets.is_secret(key)
    assert secrets.scrub({key: "hunter2"}) == {key: REDACTED}


@pytest.mark.parametrize(
    "key",
    [
        *("max_tokens", "token_count", "tokenizer", "total_tokens", "key", "keys", "primary_key"),
        *("thread_id", "author", "authority", "monkey", "secretary", "cookie_policy", "passed"),
        *("langgraph_auth_user_id", "", "关键词"),
    ],
)
def test_what_only_sounds_like_a_secret_stays(key: str) -> None:
    assert not secrets.is_secret(key)


def test_secrets_are_found_at_any_depth_and_the_rest_is_kept() -> None:
    value = {
        "user": "ann",
        "headers": [{"name": "Authorization", "value": "Basic abc"}, {"name": "a", "value": "b"}],
        "nested": {"deep": [{"api_key": {"id": 1, "key": "x"}}], "n": 3},
    }
    assert secrets.scrub(value) == {
        "user": "ann",
        "headers": [{"name": "Authorization", "value": REDACTED}, {"name": "a", "value": "b"}],
        "nested": {"deep": [{"api_key": REDACTED}], "n": 3},
    }


def test_a_value_without_secrets_is_handed_back_as_it_is() -> None:
    value = {"a": [1, {"b": "c"}], "t": (1, 2)}
    assert secrets.scrub(value) is value


def test_whether_there_is_a_secret_is_no_secret() -> None:
    assert secrets.scrub({"token": None, "password": True}) == {"token": None, "password": True}


@pytest.mark.parametrize(
    "value",
    [
        "Bearer abcdefgh12345",
        "sk-proj-abcdefghijklmnop",
        "ghp_abcdefghijklmnopqrstuvwxyz",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    ],
)
def test_a_secret_is_known_by_its_looks_under_any_key(value: str) -> None:
    assert secrets.scrub({"note": value}) == {"note": REDACTED}


def test_of_a_url_only_the_password_goes() -> None:
    assert secrets.scrub("postgresql://ann:hunter2@db:5432/x") == (
        f"postgresql://ann:{REDACTED}@db:5432/x"
    )
    assert secrets.scrub("https://example.com/a?b=c") == "https://example.com/a?b=c"
    assert secrets.scrub("sk-short, bearer of news") == "sk-short, bearer of news"


async def test_no_checkpoint_keeps_a_secret_of_its_run(db: Database) -> None:
    saver = Saver(db, owner_id=await db.owner("acme", "ann"))

    def idle(state: MessagesState) -> Any:
        return {}

    echo: Any = StateGraph(MessagesState).add_node(idle).add_edge(START, "idle")
    secret = "hunter2-hunter2"
    config: Any = {
        "configurable": {"thread_id": "t", "openai_api_key": secret, "anything": secret},
        "metadata": {"db_password": secret, "url": f"https://ann:{secret}@host/", "team": "blue"},
    }
    await echo.compile(checkpointer=saver).ainvoke({"messages": []}, config)
    rows = await db.fetch(SERVICE, "select metadata::text as told from clew.checkpoint")
    assert len(rows) == 3
    assert all(secret not in row["told"] and "blue" in row["told"] for row in rows)
