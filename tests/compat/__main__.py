"""`python -m tests.compat [NAME ...]`: play the scripts against both servers and compare."""

import argparse
import asyncio
import importlib
import inspect
import logging
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx

from tests.compat import divergences, servers
from tests.compat.differences import Difference, between
from tests.compat.side import PATIENCE, Side

Scenario = Callable[[Side], Awaitable[None]]


def scenarios() -> Iterator[tuple[str, Scenario]]:
    for file in sorted((Path(__file__).parent / "scripts").glob("*.py")):
        module = importlib.import_module(f"tests.compat.scripts.{file.stem}")
        for name, found in vars(module).items():
            own = getattr(found, "__module__", "") == module.__name__
            if own and inspect.iscoroutinefunction(found) and not name.startswith("_"):
                yield f"{file.stem}.{name}", found


async def play(url: str, name: str, scenario: Scenario) -> Side:
    # A connection each: the official server drops one after answering 500.
    alone = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=alone) as http:
        side = Side(http, name)
        try:
            await scenario(side)
        except Exception as error:  # noqa: BLE001  (whatever it was, it is told as a difference)
            last = traceback.extract_tb(error.__traceback__)[1]
            side.gave_up = f"{type(error).__name__} at {last.line}: {error}"[:400]
        return side


async def compare(chosen: list[tuple[str, Scenario]]) -> list[Difference]:
    found: list[Difference] = []
    async with servers.official() as official, servers.clew() as clew:
        for name, scenario in chosen:
            begun = time.monotonic()
            sides = await asyncio.gather(play(official, name, scenario), play(clew, name, scenario))
            here = list(between(*sides))
            found += here
            print(
                f"{name}: {len(sides[0].replies)} answers, {len(here)} differences, "
                f"{time.monotonic() - begun:.1f} s",
                flush=True,
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios to play, by the start of their names")
    options = parser.parse_args()
    everything = list(scenarios())
    chosen = [
        item for item in everything if not options.names or item[0].startswith(tuple(options.names))
    ]
    logging.disable(logging.CRITICAL)  # graphs fail here on purpose
    found = asyncio.run(compare(chosen))
    unexplained = divergences.unexplained(found)
    outdated = divergences.outdated(found) if len(chosen) == len(everything) else []
    for difference in unexplained:
        print(f"\nnot documented: {difference}")
    for row in outdated:
        print(f"\nno longer so: {row.step} {row.path}\n    {row.reason}")
    print(
        f"\n{len(chosen)} scenarios, {len(found)} differences, {len(unexplained)} not documented,"
        f" {len(outdated)} documented ones that are gone"
    )
    return 1 if unexplained or outdated else 0


if __name__ == "__main__":
    sys.exit(main())
