"""`hemostat keys`: add, list, revoke."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.configuration import settings
from app.cli.once import Commands
from app.cli.options import AsJson
from app.cli.output import err, out, print_json
from app.contracts.errors import ErrorCode, HemostatError
from app.security import audit, keys
from app.security.scopes import Key, Scope

keys_app = Commands(help="API keys of the service (HEMOSTAT_API_KEYS_FILE).", no_args_is_help=True)


@keys_app.command()
def add(
    name: Annotated[str, typer.Argument(help="Owner of the key; jobs belong to the owner, who may have several keys.")],
    *,
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; repeat it for more.")],
    expires: Annotated[
        str | None, typer.Option(help="A date or time, UTC: 2027-01-31 or 2027-01-31T12:00:00Z.")
    ] = None,
    no_shadow: Annotated[bool, typer.Option("--no-shadow", help="Never score what it generates again.")] = False,
) -> None:
    """Make a key and print it once. A running service accepts it within seconds."""
    file = _file()
    if not keys.OWNER.fullmatch(name):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} is not an owner's name",
            hint="use 1 to 64 letters, digits, dots, hyphens and underscores",
        )
    until = None if expires is None else _time(expires)
    with _told():
        text, key = keys.add_key(file, name, frozenset(scope), expires=until, no_shadow=no_shadow)
    _record("add", key)
    err.print(f"Key {key.id} of {name}. It is printed once and not stored:", markup=False)
    out.print(text, markup=False, soft_wrap=True)


@keys_app.command("list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List the keys by owner: id, scopes, expiry. Never the keys themselves."""
    with _told():
        found = sorted(keys.load_keys(_file()), key=lambda key: (key.owner, key.id))
    if as_json:
        print_json([_shown(key) for key in found])
        return
    table = Table(box=None, header_style="bold")
    for heading in ("owner", "key", "scopes", "expires", ""):
        table.add_column(heading, overflow="fold")
    for key in found:
        told = _shown(key)
        notes = [*(["expired"] if told["expired"] else []), *(["no-shadow"] if key.no_shadow else [])]
        table.add_row(key.owner, key.id, " ".join(sorted(key.scopes)), told["expires"] or "never", ", ".join(notes))
    out.print(table if found else f"{_file()} holds no key.")


@keys_app.command()
def revoke(name: Annotated[str, typer.Argument(help="Id of a key, or an owner: then all keys of the owner.")]) -> None:
    """Remove a key. A running service refuses it within seconds, and ends its open streams."""
    file = _file()
    with _told():
        gone = keys.revoke_keys(file, name)
    if not gone:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{file} has no key {name!r}, and no owner of this name",
            hint="`hemostat keys list` shows both",
        )
    for key in gone:
        _record("revoke", key)
        out.print(f"revoked: {key.id} of {key.owner}", markup=False)


def _record(verb: str, key: Key) -> None:
    user = f"uid:{os.getuid()}"
    audit.record(settings().home, owner=user, key="", action=f"keys {verb}", object=f"{key.owner}:{key.id}", address="")


def _shown(key: Key) -> dict[str, Any]:
    expired = key.expires is not None and key.expires <= time.time()
    return {
        "owner": key.owner,
        "key": key.id,
        "scopes": sorted(key.scopes),
        "expires": None if key.expires is None else keys.written_time(key.expires),
        "expired": expired,
        "no_shadow": key.no_shadow,
    }


def _file() -> Path:
    found = settings().api_keys_file
    if found is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "HEMOSTAT_API_KEYS_FILE is not set, so there is no key file",
            hint="set it for this command and for the service: export HEMOSTAT_API_KEYS_FILE=~/hemostat-keys",
        )
    return found.expanduser().absolute()


def _time(text: str) -> float:
    try:
        until = keys.parse_time(text)
    except ValueError as error:
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"--expires {text}: {error}", hint="give it in UTC") from None
    if until <= time.time():
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"--expires {text} is in the past", hint="give a later time, or leave it out"
        )
    return until


@contextmanager
def _told() -> Iterator[None]:
    """Faults of the file, as errors of a command."""
    try:
        yield
    except (keys.KeyFileError, OSError) as error:
        hint = "correct the file that HEMOSTAT_API_KEYS_FILE names; hemostat keys add NAME --scope SCOPE begins one"
        raise HemostatError(ErrorCode.INVALID_REQUEST, str(error), hint=hint) from error
