"""`clew keys`: API keys are made, listed and revoked from a terminal.

A key is told once, alone on stdout, so that it can be piped to where it is kept; what people want
to know of it is on stderr.
"""

import argparse
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from clew.api import auth, operate, terminal
from clew.checkpointing.postgres import SERVICE
from clew.runtime import errors, keys, names, values
from clew.runtime.keys import Key, Role

_HEAD = ("ID", "OWNER", "ROLE", "SCOPES", "STATE", "CREATED", "EXPIRES", "USED", "NAME")
_LONGEST = timedelta(days=36525)


def add_arguments(sub: argparse.ArgumentParser) -> None:
    commands = sub.add_subparsers(required=True, metavar="command")
    about = "Make a key and print it, once."
    one = commands.add_parser("create", help=about, description=about)
    one.set_defaults(command=create)
    one.add_argument("--tenant", type=_name, default="default", help="of this tenant (default)")
    one.add_argument("--owner", type=_name, required=True, help="whom it speaks for")
    one.add_argument("--name", type=_name, required=True, help="what it is called in lists")
    told = "what it reaches: its owner's (owner), its tenant's (admin), everybody's (service)"
    one.add_argument("--role", choices=get_args(Role), default="owner", help=told)
    told = "read, write, threads:read, ...; may be repeated; without it all that the role may"
    one.add_argument("--scope", action="append", type=_scope, default=[], help=told)
    told = "after which it is refused, such as 90d; without it never"
    one.add_argument("--expires", type=_lifetime, metavar="TIME", help=told)
    about = "List the keys, never what they are."
    one = commands.add_parser("list", help=about, description=about)
    one.set_defaults(command=list_)
    one.add_argument("--tenant", help="only of this tenant (with --owner: default)")
    one.add_argument("--owner", help="only of this owner")
    one.add_argument("--json", action="store_true", help="the outcome as JSON")
    about = "Refuse a key from now on."
    one = commands.add_parser("revoke", help=about, description=about)
    one.set_defaults(command=revoke)
    one.add_argument("key_id", metavar="KEY_ID", help="as `clew keys list` tells it")


async def create(options: argparse.Namespace) -> int:
    async with operate.ground() as on:
        key, text = await keys.create(
            on.db,
            options.tenant,
            options.owner,
            name=options.name,
            role=options.role,
            scopes=options.scope,
            lifetime=options.expires,
        )
    terminal.say(text)
    until = "until it is revoked" if key.expires_at is None else f"until {_day(key.expires_at)}"
    whose = terminal.clean(f"{options.tenant}/{options.owner}")
    may = f"{', '.join(key.scopes)} only" if key.scopes else "all that its role may"
    sys.stderr.write(
        f"Key {key.key_id} of {whose}, role {key.role}, {may}, "
        f"{until}. It is not shown again.\n"
        "Send it as the header x-api-key; servers with CLEW_API_KEYS=true accept it.\n"
    )
    return 0


async def list_(options: argparse.Namespace) -> int:
    async with operate.ground() as on:
        reach = SERVICE
        if options.owner is not None or options.tenant is not None:
            reach = await names.reach(on.db, options.tenant, options.owner)
        found = await keys.search(on.db, reach, limit=None)
        owners = await names.of(on.db, (key.owner_id for key in found))
    if options.json:
        terminal.tell({"keys": [_shown(key, owners.get(key.owner_id)) for key in found]})
    elif not found:
        terminal.say("No keys.")
    else:
        terminal.table(
            _HEAD,
            [_row(key, owners.get(key.owner_id)) for key in found],
            colours={"expired": "dim", "revoked": "dim", "service": "yellow"},
            spare=("CREATED", "USED", "SCOPES", "EXPIRES"),
        )
    return 0


async def revoke(options: argparse.Namespace) -> int:
    if options.key_id.startswith(keys.PREFIX):
        # Not repeated: it may be a key that works.
        raise errors.ConfigError("This is a key and not the id of one: see `clew keys list`.")
    async with operate.ground() as on:
        key = await keys.revoke(on.db, SERVICE, options.key_id)
    terminal.say(f"Key {key.key_id} ({terminal.clean(key.name)}) is refused from now on.")
    return 0


def _shown(key: Key, owner: str | None) -> dict[str, Any]:
    told = asdict(key)
    del told["owner_id"]
    return {"owner": owner, "state": _state(key), **told}


def _row(key: Key, owner: str | None) -> tuple[object, ...]:
    return (
        key.key_id,
        owner,
        key.role,
        ",".join(key.scopes) or None,
        _state(key),
        key.created_at,
        key.expires_at,
        key.last_used_at,
        key.name,
    )


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    over = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return "expired" if over else "active"


def _day(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M")


def _name(text: str) -> str:
    try:
        return auth.named(text)
    except errors.Unauthorized:
        raise argparse.ArgumentTypeError("must be of 1 to 256 characters") from None


def _scope(text: str) -> str:
    try:
        return keys.scope(text)
    except errors.Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _lifetime(text: str) -> timedelta:
    try:
        told = values.duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    assert isinstance(told, timedelta)
    if not timedelta() < told <= _LONGEST:
        raise argparse.ArgumentTypeError("must be a time such as 90d, of at most 100 years")
    return told
