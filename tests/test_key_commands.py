"""`clew keys` as operators use it: the real command, and what a key that it made opens."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from clew.api import cli
from clew.checkpointing.postgres import Database
from clew.runtime import errors, keys
from tests.serving import serve

Said = tuple[str, str]
Shell = Callable[..., Any]


@pytest.fixture
def clew(dsn: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """Runs the command as its own main would; what it wrote to stdout and to stderr."""
    monkeypatch.setenv("DATABASE_URL", dsn)

    async def run(*words: str, code: int = 0) -> Said:
        capfd.readouterr()
        try:
            left = await asyncio.to_thread(cli.main, ["keys", *words])
        except SystemExit as told:  # argparse's way to say that the words are wrong
            left = told.code
        said = capfd.readouterr()
        assert left == code, said
        assert "Traceback" not in said.err
        return said.out, said.err

    return run


async def test_a_key_opens_a_server_until_it_is_revoked(clew: Shell, dsn: str) -> None:
    out, err = await clew("create", "--owner", "安", "--name", "laptop", "--expires", "90d")
    key = out.strip()
    assert out == f"{key}\n"
    assert key.startswith(keys.PREFIX)
    assert key not in err
    assert "not shown again" in err
    assert "default/安" in err
    listed, _ = await clew("list", "--json")
    [told] = json.loads(listed)["keys"]
    assert (told["owner"], told["state"], told["role"]) == ("default/安", "active", "owner")
    assert told["key_id"] in err
    async with serve(dsn, api_keys=True) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/sessions")).status_code == 401
        mine = {"x-api-key": key}
        assert (await http.get("/sessions", headers=mine)).status_code == 200
        out, _ = await clew("revoke", told["key_id"])
        assert "laptop" in out
        assert (await http.get("/sessions", headers=mine)).status_code == 401
    table, _ = await clew("list")
    assert "revoked" in table


async def test_a_key_is_of_the_role_and_scopes_that_were_asked_for(
    clew: Shell, db: Database
) -> None:
    words = ("--tenant", "acme", "--owner", "bot", "--name", "nightly", "--role", "admin")
    out, err = await clew("create", *words, "--scope", "read", "--scope", "threads:write")
    held = await keys.verify(db, out.strip())
    assert (held.tenant, held.owner, held.key.role) == ("acme", "bot", "admin")
    assert held.key.scopes == ["read", "threads:write"]
    assert held.key.expires_at is None
    assert "read, threads:write only" in err


async def test_keys_are_listed_by_owner_and_tenant_and_never_shown(clew: Shell) -> None:
    assert await clew("list") == ("No keys.\n", "")
    made = [
        (await clew("create", "--tenant", tenant, "--owner", owner, "--name", name))[0].strip()
        for tenant, owner, name in (
            ("acme", "ann", "one"),
            ("acme", "bob", "笔记本"),
            ("default", "ann", "three"),
        )
    ]
    for words, names in (
        ((), ["three", "笔记本", "one"]),
        (("--tenant", "acme"), ["笔记本", "one"]),
        (("--tenant", "acme", "--owner", "bob"), ["笔记本"]),
        (("--owner", "ann"), ["three"]),
    ):
        out, _ = await clew("list", *words)
        head, *rows = out.splitlines()
        assert [row.split()[-1] for row in rows] == names
        # The columns line up.
        at = head.index("STATE")
        assert all(row[at:].startswith("active") for row in rows)
        as_json, _ = await clew("list", *words, "--json")
        assert [key["name"] for key in json.loads(as_json)["keys"]] == names
        assert not any(key.removeprefix(keys.PREFIX) in out + as_json for key in made)
    _, err = await clew("list", "--owner", "nobody", code=1)
    assert "there is no owner 'nobody'" in err


async def test_a_mistake_is_one_line_and_makes_nothing(clew: Shell, db: Database) -> None:
    out, err = await clew("revoke", "5f0c1d2e3a4b", code=1)
    assert (out, err) == ("", "clew: API key 5f0c1d2e3a4b not found\n")
    for words, code, told in (
        (("--name", "k", "--owner", "ann", "--scope", "reed"), 2, "'reed' is not a scope"),
        (("--name", "k", "--owner", "ann", "--expires", "soon"), 2, "such as 30s"),
        (("--name", "k", "--owner", "ann", "--expires", "0"), 2, "such as 90d"),
        (("--name", "k", "--owner", "ann", "--expires", "99999999w"), 2, "at most 100 years"),
        (("--name", "k", "--owner", ""), 2, "1 to 256 characters"),
        (("--name", "k"), 2, "--owner"),
    ):
        out, err = await clew("create", *words, code=code)
        assert out == ""
        assert told in err
    assert await clew("list") == ("No keys.\n", "")
    # A key in place of its id is not repeated: it works still.
    key = (await clew("create", "--owner", "ann", "--name", "k"))[0].strip()
    _, err = await clew("revoke", key, code=2)
    assert key not in err
    assert "clew keys list" in err
    await keys.verify(db, key)
    with pytest.raises(errors.Unauthorized):
        await keys.verify(db, f"{key}x")
