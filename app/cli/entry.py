"""The `hemostat` command from its first line on: its commands take a second to import, and Ctrl-C may come before they
are there. Imports nothing that takes time itself."""

import sys

from app.cli.interruption import raise_on_sigterm, status_of


def main() -> None:
    """Runs the command line. Ctrl-C or SIGTERM while it is still being imported ends in one line and 130 or 143."""
    try:
        raise_on_sigterm()
        from app.cli import main as commands  # takes a second
    except KeyboardInterrupt as interruption:
        print("interrupted before anything started", file=sys.stderr)
        raise SystemExit(status_of(interruption)) from None
    commands.main()
