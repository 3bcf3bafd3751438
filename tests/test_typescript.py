"""The TypeScript client: it is what the document says, it type-checks, and it works."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from clew.api import cli
from clew.checkpointing.postgres import Database
from clew.runtime import keys
from tests.routes import CLIENT
from tests.serving import serve
from tests.test_client import Cutting

HERE = Path(__file__).parent


def test_row_32_the_typescript_client_is_the_one_that_the_document_makes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["openapi", "--typescript"]) == 0
    made = capsys.readouterr().out
    assert CLIENT.read_text() == made, "python -m tests.routes writes it"
    assert cli.main(["openapi"]) == 0
    paths = json.loads(capsys.readouterr().out)["paths"]
    assert paths["/sessions/{thread_id}/undo"]["post"]["x-clew-calls"] == [
        {"name": "sessions.undo", "answer": "json"}
    ]
    for method in ("send(", "restore(", "fork(", "import(", "tree(", "revoke(", "erase("):
        assert f"  {method}" in made


@pytest.fixture
def compiled(javascript: Path, tmp_path: Path) -> Path:
    """The client and a program that uses it, compiled after a strict check of their types, which a
    wrong name does not pass."""
    (tmp_path / "client.ts").write_text(CLIENT.read_text())
    (tmp_path / "use.ts").write_text((HERE / "client_use.ts").read_text())
    # The few words of node that it uses, as the types of all of node are no dependency of ours.
    (tmp_path / "node.d.ts").write_text(
        'declare module "node:assert/strict" {\n'
        "  export function equal(a: unknown, b: unknown): void;\n"
        "  export function deepEqual(a: unknown, b: unknown): void;\n"
        "}\ndeclare const process: { argv: string[] };\n"
    )
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = (
        "--strict --target es2022 --module nodenext --noUnusedLocals --exactOptionalPropertyTypes "
        "--noImplicitReturns --lib es2022,dom,dom.iterable,dom.asynciterable"
    )
    command = [javascript / "node_modules/.bin/tsc", *options.split()]
    subprocess.run([*command, "client.ts", "use.ts", "node.d.ts"], cwd=tmp_path, check=True)
    return tmp_path


async def test_row_32_the_typescript_client_works(compiled: Path, db: Database, dsn: str) -> None:
    _, key = await keys.create(db, "acme", "alice", name="ts", role="owner")
    async with serve(dsn, api_keys=True) as url:
        proxy = Cutting(url)
        proxy.marks = [b"event: metadata", b"event: values", b"session.created\r\n"]
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            node = await asyncio.create_subprocess_exec(
                "node", "use.js", url, key, f"http://{host}:{port}",
                cwd=compiled, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            said, _ = await asyncio.wait_for(node.communicate(), 60)
    assert said.decode() == "done\n", said.decode()
    assert proxy.cut == 3
