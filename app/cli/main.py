"""Commands of `hemostat`. `app.cli.output.Exit` has the exit statuses."""

from __future__ import annotations

import os
import re
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.markup import escape
from typer._click.exceptions import NoArgsIsHelpError, NoSuchOption, UsageError
from typer.core import TyperGroup

from app.cli import demo as demo_command
from app.cli.configuration import settings
from app.cli.deploy import WORDS as DEPLOYMENT_WORDS
from app.cli.deploy import deploy_app
from app.cli.diff import diff
from app.cli.doctor import doctor as run_doctor
from app.cli.flips import flips_app
from app.cli.interruption import raise_on_sigterm, status_of
from app.cli.jobs import jobs_app
from app.cli.keys import keys_app
from app.cli.models import models_app
from app.cli.once import Commands
from app.cli.options import AsJson, Details, Url
from app.cli.output import Exit, fail, out, print_json
from app.cli.profiles import profiles_app
from app.cli.schema import errors, schema
from app.cli.serve import demo_deployment, serve
from app.cli.service import connect
from app.cli.submitting import submitting
from app.cli.threshold import threshold
from app.cli.watching import check_writable, require_success, save_page
from app.commands.places import Words, words_of_kind
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.registry import KINDS, kind_of
from app.reports.render import as_markdown
from app.reports.terminal import render_terminal
from app.up import require_ports, run_up
from app.web.phases import all_phases

# As they are met: run it, measure, compare measurements, repair, look after.
_ORDER = [
    "up",
    "demo",
    *KINDS,
    "threshold",
    "diff",
    "flips",
    "report",
    "schema",
    "jobs",
    "models",
    "deploy",
    "profiles",
    "serve",
    "keys",
    "errors",
    "doctor",
    "version",
]


# What pydantic says of a value, and what helps a person.
_PYDANTIC: Final = re.compile(
    r"Value error, |Input should be a valid (integer|number)(?:, unable to parse string as .*)?"
)
_PLAIN: Final = {"integer": "it is not a whole number", "number": "it is not a number"}


class _GoneError(Exception):
    """No one reads the output any more."""


def _wrong_usage(error: UsageError) -> NoReturn:
    """Reports it as every other error."""
    if isinstance(error, NoArgsIsHelpError):
        raise error
    command = error.ctx.command_path if error.ctx else "hemostat"
    detail = _PYDANTIC.sub(lambda found: _PLAIN.get(found[1], ""), " ".join(error.format_message().split()))
    others = _others_with(error) if isinstance(error, NoSuchOption) else ""
    wrong = HemostatError(
        ErrorCode.INVALID_REQUEST, detail, hint=f"{others}`{command} --help` shows its arguments and options"
    )
    fail(wrong, as_json="--json" in sys.argv)


def _others_with(error: NoSuchOption) -> str:
    """Which commands beside this one have the option; "" if none or many have it."""
    group = error.ctx and error.ctx.parent and error.ctx.parent.command
    commands = group.commands.values() if isinstance(group, TyperGroup) else ()
    names = [str(one.name) for one in commands if any(error.option_name in option.opts for option in one.params)]
    return f"{error.option_name} is an option of {', '.join(names)}; " if 0 < len(names) <= len(KINDS) else ""


def _words(command: list[str]) -> Words:
    """What sets the fields of a body at the prompt of the command that was given."""
    if command == ["deploy"]:
        return DEPLOYMENT_WORDS
    kind = kind_of(*command) if command else None
    return words_of_kind(kind.request) if kind else {}


class _Listed(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(
            super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)
        )

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except UsageError as error:
            _wrong_usage(error)
        except KeyboardInterrupt as interruption:  # as below, while the command line is still read
            raise SystemExit(status_of(interruption)) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:  # typer would not tell one from the other
            raise SystemExit(status_of(interruption)) from None
        except BrokenPipeError:
            raise _GoneError from None  # typer would end with 1
        except UsageError as error:
            _wrong_usage(error)


app = Commands(
    cls=_Listed,
    help="Find, stop and watch model hemorrhage: what a language model loses when it is changed for deployment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long help off
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs_app, name="jobs")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(deploy_app, name="deploy")
app.command()(serve)
app.add_typer(profiles_app, name="profiles")
app.command()(threshold)
app.command()(schema)
app.command()(errors)
app.command()(diff)
for _kind in KINDS.values():
    app.command(_kind.name)(submitting(_kind))
app.add_typer(flips_app, name="flips")


@app.command()
def up(
    *,
    deploy: Annotated[
        bool | None,
        typer.Option("--deploy/--no-deploy", help="Serve the demo model, calibrated; default: HEMOSTAT_DEPLOY_DEMO."),
    ] = None,
) -> None:
    """Run the service in the foreground: API, one worker, serving processes, an embedded Valkey. Ctrl-C ends it all."""
    configured = settings()
    wanted = configured.deploy_demo if deploy is None else deploy
    require_ports(configured)  # before the demo model is built, which takes a minute
    deployment = demo_deployment(configured) if wanted else None
    words = {name: phase.words for name, phase in all_phases().items()}
    raise SystemExit(run_up(configured, deployment=deployment, phases=words))


@app.command()
def demo(*, details: Details = False, as_json: AsJson = False) -> None:
    """Build the demo model, quantize it to 4 bits, compare, and print the verdict."""
    demo_command.demo(settings(), as_json=as_json, details=details)


@app.command()
def report(
    job_id: str,
    *,
    html: Annotated[Path | None, typer.Option(help="Write the HTML page there.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request.")] = False,
    url: Url = None,
    details: Details = False,
    as_json: AsJson = False,
) -> None:
    """Show the report of a finished job, or write its HTML page."""
    if html:
        check_writable(html)
    with connect(url, settings()) as client:
        require_success(client.job(job_id))
        found = client.report(job_id)
        page = save_page(client.report_html(job_id), html) if html else None
    if as_json:
        print_json(found)
    elif markdown:
        out.print(as_markdown(found), markup=False, highlight=False, soft_wrap=True, end="")
    else:
        render_terminal(found, out, details=details)
        if page:
            out.print(f"Report: {escape(str(page))}", soft_wrap=True)
        for line in KINDS[found["kind"]].call("next_commands", found, url) or ():
            out.print(f"  {line}", markup=False, soft_wrap=True)


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check the installation: which engine runs, what is missing, and how to get it."""
    raise SystemExit(run_doctor(settings(), as_json=as_json))


@app.command()
def version() -> None:
    """Print the version."""
    out.print(metadata.version("hemostat"))


def main() -> None:
    """Entry point: every error of ours is reported in the same way."""
    try:
        raise_on_sigterm()
        app()
    except KeyboardInterrupt as interruption:
        raise SystemExit(status_of(interruption)) from None
    except HemostatError as error:
        fail(error, as_json="--json" in sys.argv, words=_words(sys.argv[1:2]))
    except (_GoneError, BrokenPipeError):
        # The reader has gone; what it read is not what was measured.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(Exit.FAILED) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(Exit.FAILED) from None  # Python's own status, 1, would say that a rule fails


if __name__ == "__main__":
    main()
