"""`clew sessions` as operators use it: the real command, and what it did to the real database."""

import asyncio
import base64
import contextlib
import json
import os
import pty
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from clew.api import cli, terminal
from clew.checkpointing import history
from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import bundles, errors, ids, lifecycle, retention, sessions
from clew.runtime.sessions import Session
from tests.serving import serve
from tests.test_cli import run

Json = dict[str, Any]


class Shell:
    """Runs the command in this process, as its own main would, and hears what it says."""

    def __init__(self, heard: Callable[[], Any]) -> None:
        self._heard = heard

    async def __call__(self, *words: str, code: int = 0) -> str:
        self._heard()
        try:
            left = await asyncio.to_thread(cli.main, ["sessions", *words])
        except SystemExit as told:  # argparse's way to say that the words are wrong
            left = told.code
        said = self._heard()
        assert left == code, (words, said)
        assert "Traceback" not in said.err
        return said.out if code == 0 else said.out + said.err

    async def json(self, *words: str) -> Any:
        return json.loads(await self(*words, "--json"))


@pytest.fixture
def clew(dsn: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("DATABASE_URL", dsn)
    return Shell(capfd.readouterr)


@pytest_asyncio.fixture
async def talks(dsn: str) -> AsyncIterator[list[str]]:
    """Two sessions of two turns each, and one in which nothing ran."""
    keys: list[str] = []
    async with serve(dsn) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        for title in ("会议纪要", "Plain"):
            body = {"assistant_id": "echo", "title": title, "tags": ["t"]}
            keys.append((await http.post("/sessions", json=body)).json()["thread_id"])
            for text in ("你好", "and again"):
                at = f"/sessions/{keys[-1]}/messages"
                reply = await http.post(at, json={"content": text, "stream": False})
                assert reply.status_code == 200
        keys.append((await http.post("/sessions", json={"title": "empty"})).json()["thread_id"])
    yield keys


async def owner_of(db: Database, key: str) -> tuple[Session, Principal]:
    session = await sessions.find(db, SERVICE, key)
    return session, Principal.owner(session.owner_id)


async def checkpoints(db: Database, key: str) -> list[str]:
    """Of the session's line, the oldest first."""
    _, who = await owner_of(db, key)
    async with db.transaction(who) as conn:
        found = await history.list_(conn, key, limit=100)
    return [entry.checkpoint_id for entry in reversed(found)]


async def test_row_43_sessions_are_listed_shown_and_compared(
    clew: Shell, talks: list[str], db: Database
) -> None:
    first, second, empty = talks
    lines = (await clew("ls")).splitlines()
    assert [line.split()[0] for line in lines] == ["ID", empty, second, first]
    # The columns line up where characters are two wide as well.
    at = lines[0].index("TITLE")
    assert all(terminal.width(line[: line.rindex(t)]) == at for line, t in zip(
        lines[1:], ("empty", "Plain", "会议纪要"), strict=True
    ))  # fmt: skip
    assert (await clew("ls", "--tag", "nothing")).strip() == "No sessions."
    found = await clew.json("ls", "--graph", "echo", "--reverse", "--limit", "1")
    assert [one["thread_id"] for one in found["sessions"]] == [first]
    owner = found["sessions"][0]["owner"]
    tenant, name = owner.split("/")
    mine = ("--tenant", tenant, "--owner", name)
    texts = await clew.json("ls", *mine, "--text", "会议")
    assert [one["thread_id"] for one in texts["sessions"]] == [first]
    found = await clew.json("ls", "--owner", owner, "--limit", "2")  # as the table shows it
    assert ([one["thread_id"] for one in found["sessions"]], found["more"]) == (
        [empty, second],
        True,
    )
    assert not (await clew.json("ls", "--limit", "3"))["more"]
    shown = await clew("show", first)
    assert "会议纪要" in shown
    assert f"owner           {owner}" in shown
    told = await clew.json("show", first)
    assert (told["title"], told["message_count"]) == ("会议纪要", 4)
    assert told["storage"]["total_bytes"] > 0
    path = await checkpoints(db, first)
    lines = (await clew("diff", first, path[2], path[-1])).splitlines()
    assert lines[0].startswith(f"--- {first} {path[2]}")
    assert [line[:12] for line in lines if "and again" in line] == ["+ messages[2", "+ messages[3"]
    assert (await clew("diff", first, path[2], path[2])).splitlines()[-1] == "No difference."
    assert (await clew.json("diff", first, "--with", second))["values"]["messages"]


async def test_row_43_a_session_is_put_back_undone_and_forked(
    clew: Shell, talks: list[str], db: Database
) -> None:
    first, second, empty = talks
    session, who = await owner_of(db, first)
    path = await checkpoints(db, first)
    middle = path[2]
    said = await clew("restore", first, middle, "--reason", "wrong \x1b[31mturn")
    assert said.startswith(f"Restored to {middle}")
    assert (await sessions.get(db, who, first)).message_count == 2
    entry = (await lifecycle.log(db, who, thread_id=first))[0]
    assert (entry.actor, entry.detail["reason"]) == ("operator", "wrong \x1b[31mturn")
    drawn = (await clew("tree", first)).splitlines()
    assert drawn[0].endswith("6 checkpoints")
    # The line that the restore began hangs below its checkpoint, and is where the head is now.
    at = next(n for n, line in enumerate(drawn) if middle in line)
    assert drawn[at + 1].startswith("│  line ")
    assert "head" in drawn[at + 1]
    assert "“wrong \N{REPLACEMENT CHARACTER}[31mturn”" in drawn[at + 1]
    assert len((await clew.json("tree", first))["branches"]) == 2
    assert (await clew.json("undo", first))["message_count"] == 4
    assert (await sessions.get(db, who, first)).message_count == 4
    assert "not on a restored line" in await clew("undo", second, code=1)
    chosen = ids.mint()
    made = await clew.json("fork", first, middle, "--title", "另一条路", "--id", chosen)
    assert (made["thread_id"], made["message_count"]) == (chosen, 2)
    forked = await sessions.get(db, who, chosen)
    assert (forked.parent_thread_id, forked.title) == (first, "另一条路")
    assert forked.owner_id == session.owner_id
    assert "of the session that this one was forked from" in await clew("tree", chosen)
    assert "Nothing ran" in await clew("tree", empty)


async def test_row_43_mistakes_are_one_line_and_an_exit_code(clew: Shell, talks: list[str]) -> None:
    first, *_ = talks
    unknown = ids.mint()
    for command in ("show", "tree", "undo", "export", "fork"):
        said = await clew(command, unknown, code=1)
        assert said.strip() == f"clew: Thread with ID {unknown} not found"
    assert "no checkpoint" in await clew("restore", first, unknown, code=1)
    assert "invalid UUID value" in await clew("show", "x", code=2)
    assert "--label" in await clew("restore", first, code=2)
    assert "no owner 'bob'" in await clew("ls", "--owner", "bob", code=1)
    assert "no tenant 'acme'" in await clew("ls", "--tenant", "acme", code=1)
    assert "--owner" in await clew("ls", "--text", "a", code=2)
    assert "--yes" in await clew("prune", first, "--policy", "keep_last 1", code=2)
    assert "0 checkpoints" in await clew("prune", first)  # nothing to ask about
    assert "from which checkpoint" in await clew("diff", first, code=2)
    assert "--every" in await clew("prune", code=2)
    assert "--owner" in await clew("import", "x.clew", code=2)
    assert "cannot be read" in await clew("import", "x.clew", "--owner", "bob", code=1)
    assert "cannot be written" in await clew("export", first, "--to", "/nowhere/x", code=1)


async def test_row_43_pruning_tells_first_and_then_removes(
    clew: Shell, talks: list[str], db: Database
) -> None:
    first, second, _ = talks
    before = {key: await checkpoints(db, key) for key in (first, second)}
    words = ("prune", "--every", "--tag", "t", "--policy", "keep_last 1")
    would = await clew.json(*words, "--dry-run")
    assert would["dry_run"] is True
    assert {key: await checkpoints(db, key) for key in (first, second)} == before
    said = await clew(*words, "--dry-run")
    assert said.splitlines()[-1].startswith("2 of 2 sessions: ")
    assert "would go" in said
    gone = await clew.json("prune", first, "--policy", "keep_last 1", "--yes")
    foretold = {one["thread_id"]: one for one in would["sessions"]}
    assert gone["sessions"] == [foretold[first]]
    left = await checkpoints(db, first)
    assert left == before[first][-1:]
    assert await checkpoints(db, second) == before[second]
    assert (await clew.json(*words, "--yes"))["checkpoints"] == 5
    assert await checkpoints(db, second) == before[second][-1:]
    assert (await clew("tree", second)).splitlines()[0].endswith(" 1 checkpoint")


async def test_row_43_what_is_at_work_is_left_alone_and_the_servers_policy_holds(
    clew: Shell, talks: list[str], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = talks
    monkeypatch.setenv("CLEW_RETENTION", "keep_last 2")
    session, _ = await owner_of(db, first)
    await db.execute(
        SERVICE,
        "insert into clew.run (run_id, thread_id, owner_id, graph_id, status, request) "
        "values (gen_random_uuid(), %s, %s, 'echo', 'pending', '')",
        [first, session.owner_id],
    )
    assert "already running" in await clew("prune", first, "--yes", code=1)
    done = await clew.json("prune", "--every", "--yes")
    assert done["busy"] == [first]
    assert len(await checkpoints(db, first)) == 6
    assert len(await checkpoints(db, second)) == 2
    assert "1 at work were left alone" in await clew("prune", "--every", "--yes")


async def test_a_session_that_went_while_all_are_pruned_is_not_said_to_be_at_work(
    clew: Shell, talks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = retention.prune

    async def late(db: Database, who: Principal, thread_id: str, *given: Any, **more: Any) -> Any:
        await db.execute(SERVICE, "delete from clew.session where thread_id = %s", [talks[0]])
        return await prune(db, who, thread_id, *given, **more)

    monkeypatch.setattr(retention, "prune", late)
    done = await clew.json("prune", "--every", "--policy", "keep_last 1", "--yes")
    assert done["busy"] == []
    assert {one["thread_id"] for one in done["sessions"]} == {talks[1]}


async def test_row_43_encrypted_sessions_are_read_with_their_keys(
    clew: Shell, dsn: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = f"k1:{base64.b64encode(os.urandom(32)).decode()}"
    async with (
        serve(dsn, encryption_keys=keyring) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        body = {"assistant_id": "echo", "title": "locked"}
        key = (await http.post("/sessions", json=body)).json()["thread_id"]
        said = {"content": "机密", "stream": False}
        assert (await http.post(f"/sessions/{key}/messages", json=said)).status_code == 200
    path = await checkpoints(db, key)
    assert "set CLEW_ENCRYPTION_KEYS" in await clew("export", key, "--to", "-", code=1)
    monkeypatch.setenv("CLEW_ENCRYPTION_KEYS", keyring)
    assert "机密" in await clew("diff", key, path[0], path[-1])
    assert (await clew.json("restore", key, path[0]))["checkpoint_id"] == path[0]
    assert (await clew.json("undo", key))["message_count"] == 2
    lines = (await clew("export", key, "--to", "-")).splitlines()
    assert json.loads(lines[-1])["end"]["checkpoints"] >= len(path)
    told = await clew("ls", "--text", "机密", "--owner", "local", code=1)
    assert "encrypted and cannot be searched" in told


async def test_row_43_sessions_go_out_come_in_and_are_erased(
    clew: Shell, talks: list[str], db: Database, tmp_path: Path
) -> None:
    first, second, empty = talks
    folder = tmp_path / "out"
    done = await clew.json("export", "--every", "--to", str(folder))
    assert {one["thread_id"] for one in done["files"]} == {first, second}
    assert done["empty"] == [empty]
    assert sorted(os.listdir(folder)) == sorted(f"{key}.clew" for key in (first, second))  # noqa: PTH208
    whole = await clew("export", first, "--to", "-")
    file = folder / f"{first}.clew"
    assert json.loads(whole.splitlines()[0]) == json.loads(file.read_text().splitlines()[0])
    chosen = ids.mint()
    out = await clew(
        "import",
        str(file),
        "--owner",
        "bob",
        "--tenant",
        "acme",
        "--id",
        chosen,
        "--reason",
        "move",
    )
    assert out.splitlines()[1].split()[:2] == [chosen, "4"]
    bob = Principal.owner(await db.owner("acme", "bob"))
    made = await sessions.get(db, bob, chosen)
    assert (made.title, made.message_count) == ("会议纪要", 4)
    assert len(await checkpoints(db, chosen)) == len(await checkpoints(db, first))
    damaged = folder / "damaged.clew"
    damaged.write_bytes(file.read_bytes()[:-40])
    assert "clew: " in await clew("import", str(damaged), "--owner", "bob", code=1)
    words = ("erase", "--owner", "bob", "--tenant", "acme")
    told = await clew.json(*words, "--dry-run")
    assert told["rows"]["session"] == 1
    assert (await sessions.get(db, bob, chosen)).thread_id == chosen
    assert "--yes" in await clew(*words, code=2)
    receipt = await clew.json(*words, "--yes")
    assert receipt["removed"]["session"] == 1
    with pytest.raises(errors.NotFound):
        await sessions.find(db, SERVICE, chosen)
    assert "no owner 'bob'" in await clew(*words, "--yes", code=1)
    assert (await sessions.get(db, SERVICE, first)).title == "会议纪要"


async def in_terminal(monkeypatch: pytest.MonkeyPatch, *words: str, types: str = "") -> Json:
    """The command with a terminal for its input and outputs: what was seen there, and its end."""
    ours, theirs = pty.openpty()
    seen = b""

    def look() -> None:
        nonlocal seen
        with contextlib.suppress(OSError):  # its last writer is gone
            while data := os.read(ours, 65536):
                seen += data

    looking = asyncio.create_task(asyncio.to_thread(look))
    os.write(ours, types.encode())
    with monkeypatch.context() as patch:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            patch.setattr(sys, name, os.fdopen(os.dup(theirs), mode, encoding="utf-8"))
        os.close(theirs)
        code = await asyncio.to_thread(cli.main, ["sessions", *words])
        for file in (sys.stdin, sys.stdout, sys.stderr):
            file.close()
    await looking
    os.close(ours)
    return {"code": code, "seen": seen.decode()}


async def test_row_43_a_terminal_has_colours_a_bar_and_is_asked(
    dsn: str, talks: list[str], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = talks
    for name, value in (("DATABASE_URL", dsn), ("TERM", "xterm"), ("COLUMNS", "100")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    long = {"title": "会议" * 200, "thread_id": first}
    await db.execute(
        SERVICE, "update clew.session set title = %(title)s where thread_id = %(thread_id)s", long
    )
    coloured = await in_terminal(monkeypatch, "ls")
    assert coloured["code"] == 0
    assert "\x1b[1mID" in coloured["seen"]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = (await in_terminal(monkeypatch, "ls"))["seen"]
    assert "\x1b[" not in plain
    # What does not fit is cut or left out, so that every session has one line.
    assert max(map(terminal.width, plain.splitlines())) <= 100
    assert "…" in plain
    assert "SIZE" not in plain
    words = ("prune", "--every", "--policy", "keep_last 1")
    refused = await in_terminal(monkeypatch, *words, types="n\n")
    assert refused["code"] == 1
    for told in ("Pruning ", "░", "Remove this? [y/N]", "Nothing was removed."):
        assert told in refused["seen"]
    assert len(await checkpoints(db, second)) == 6
    agreed = await in_terminal(monkeypatch, *words, types="y\n")
    assert (agreed["code"], "removed" in agreed["seen"]) == (0, True)
    assert len(await checkpoints(db, second)) == 1


async def test_row_43_the_program_tells_its_commands(tmp_path: Path) -> None:
    code, told = await run("sessions", "--help", cwd=tmp_path)
    assert code == 0
    words = ("ls", "show", "tree", "restore", "undo", "fork", "diff", "prune", "export", "import")
    for word in (*words, "erase"):
        assert f"    {word} " in told


def test_row_43_text_of_any_language_and_kind_is_shown_as_wide_as_it_is() -> None:
    assert [terminal.width(text) for text in ("abc", "北京", "é", "e\u0301", "")] == [3, 4, 1, 1, 0]
    assert terminal.clip("北京市", 5) == "北京…"
    assert terminal.clip("北京市", 6) == "北京市"
    assert terminal.pad("北", 4) + "|" == "北  |"
    assert terminal.clean("a\x1b[2J\nb\u202e").replace("\ufffd", "#") == "a#[2J b#"
    assert [terminal.size(n) for n in (0, 999, 1000, 2_500_000)] == [
        "0 B", "999 B", "1.0 kB", "2.5 MB",
    ]  # fmt: skip


async def test_an_export_that_fails_leaves_no_file(
    clew: Shell, talks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = talks
    whole = bundles.dump

    async def broken(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        async for line in whole(*args, **kwargs):
            yield line
            raise errors.Unavailable("the database went away")

    monkeypatch.setattr(bundles, "dump", broken)
    assert "went away" in await clew("export", first, "--to", str(tmp_path / "x.clew"), code=1)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
