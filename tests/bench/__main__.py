"""`python -m tests.bench [NAME ...] [--short]`: measure, print, and write docs/benchmarks.md."""

import argparse
import asyncio
import importlib
import os
import tempfile
import uuid
from pathlib import Path

from clew.checkpointing import migrate
from clew.runtime import embedded
from tests.bench import report
from tests.conftest import MIGRATIONS, create, drop

NAMES = sorted(
    file.stem
    for file in Path(__file__).parent.glob("*.py")
    if "async def run(" in file.read_text() and file.stem != "__main__"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--short", action="store_true", help="seconds, to see that it runs")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="clew-bench-") as folder:
        Path(folder).chmod(0o755)
        if url := os.environ.get("DATABASE_URL"):
            asyncio.run(measure(url, options.names or NAMES, long=not options.short))
        else:
            asyncio.run(alone(Path(folder), options.names or NAMES, long=not options.short))


async def alone(folder: Path, names: list[str], *, long: bool) -> None:
    async with embedded.serve(folder, settings={"max_connections": "400"}) as server:
        await measure(server.dsn, names, long=long)


async def measure(server: str, names: list[str], *, long: bool) -> None:
    for name in names:
        database = f"bench_{name}_{uuid.uuid4().hex[:8]}"
        dsn = create(server, database)
        try:
            await migrate.apply(dsn, *MIGRATIONS)
            print(f"\n== {name}", flush=True)
            section = await importlib.import_module(f"tests.bench.{name}").run(dsn, long=long)
            if long:
                report.write(section)
        finally:
            drop(server, database)


if __name__ == "__main__":
    main()
