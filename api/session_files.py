"""`clew sessions export|import`: sessions as files, one or many."""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

from clew.api import operate_sessions as operators
from clew.api import terminal
from clew.api.operate_sessions import Site
from clew.api.rewinding import shown
from clew.checkpointing.postgres import Principal
from clew.runtime import bundles, errors, names
from clew.runtime.sessions import Session
from clew.runtime.standing import Why

_CHUNK = 256 * 1024


async def export(options: argparse.Namespace) -> int:
    """One session to a file, or every one that the filters find to a folder, one file each. One in
    which nothing ever ran has nothing to export, and is passed over among many."""
    if (options.session is None) != options.every:
        raise errors.ConfigError("Name a session, or say --every for all that the filters find.")
    async with operators.site(options) as site:
        if options.session is not None:
            session, _ = await site.find(options.session)
            target = options.to or Path(f"{session.thread_id}.clew")
            with terminal.progress("Exporting, kB") as bar:
                size = await _write(site, session, target, options.scope, bar)
            if str(target) == "-":
                return 0
            told = {"thread_id": session.thread_id, "file": str(target), "bytes": size}
            return operators.said(options, told, f"Wrote {target}, {terminal.size(size)}.")
        return await _export_all(site, options)


async def _export_all(site: Site, options: argparse.Namespace) -> int:
    folder: Path = options.to or Path()
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    wanted = [one async for one in site.every(operators.wanted(options))]
    files: list[dict[str, object]] = []
    empty: list[str] = []
    with terminal.progress("Exporting", len(wanted)) as bar:
        for one in wanted:
            file = folder / f"{one.thread_id}.clew"
            try:
                size = await _write(site, one, file, options.scope, None)
            except errors.NotFound:
                empty.append(one.thread_id)
            else:
                files.append({"thread_id": one.thread_id, "file": str(file), "bytes": size})
            bar.on()
    passed = f"; {len(empty)} had nothing to export" if empty else ""
    text = f"Wrote {len(files)} files to {folder}{passed}."
    return operators.said(options, {"files": files, "empty": empty}, text)


async def _write(
    site: Site, session: Session, target: Path, scope: str, bar: terminal.Progress | None
) -> int:
    """Whole or not at all: a fault on the way leaves no file."""
    who = Principal.owner(session.owner_id)
    lines = bundles.dump(site.ground, who, session, scope="path" if scope == "path" else "all")
    size = 0
    if str(target) == "-":
        async with aclosing(lines):
            async for line in lines:
                size += await asyncio.to_thread(sys.stdout.buffer.write, line)
        await asyncio.to_thread(sys.stdout.buffer.flush)
        return size
    partial = target.with_name(f".{target.name}.part")
    try:
        async with aclosing(lines):
            with await asyncio.to_thread(partial.open, "wb") as out:
                async for line in lines:
                    size += await asyncio.to_thread(out.write, line)
                    if bar is not None:
                        bar.to(size // 1000)
        await asyncio.to_thread(partial.replace, target)
    except OSError as fault:
        raise errors.Unavailable(f"{target} cannot be written: {fault.strerror}") from fault
    finally:
        partial.unlink(missing_ok=True)
    return size


async def import_(options: argparse.Namespace) -> int:
    """A new session of each file. A file that cannot be read or is damaged ends it; the sessions of
    the files before it are there."""
    if options.owner is None:
        raise errors.ConfigError("Say whose the sessions will be: --owner.")
    if options.id is not None and len(options.files) > 1:
        raise errors.ConfigError("--id is for one file.")
    tenant, options.tenant = options.tenant, None
    owner, options.owner = options.owner, None
    made: list[dict[str, object]] = []
    async with operators.site(options) as site:
        owner_id = await site.db.owner(*await names.split(site.db, tenant, owner))
        with terminal.progress("Importing", len(options.files)) as bar:
            for file in options.files:
                loaded = await bundles.load(
                    site.ground,
                    Principal.owner(owner_id),
                    owner_id,
                    _chunks(file),
                    Why(operators.ACTOR, options.reason),
                    thread_id=options.id and str(options.id),
                )
                counts = asdict(loaded.counts)
                del counts["session"], counts["thread_id"]
                made.append({**shown(loaded.moved), "imported": counts, "file": str(file)})
                bar.on()
    if options.json:
        terminal.tell({"sessions": made})
        return 0
    rows = [
        (one["thread_id"], one["message_count"], one["file"], one["title"] or "") for one in made
    ]
    terminal.table(("ID", "MESSAGES", "FILE", "TITLE"), rows)
    return 0


async def _chunks(file: Path) -> AsyncGenerator[bytes]:
    try:
        with await asyncio.to_thread(file.open, "rb") as opened:
            while chunk := await asyncio.to_thread(opened.read, _CHUNK):
                yield chunk
    except OSError as fault:
        raise errors.NotFound(f"{file} cannot be read: {fault.strerror}") from fault
