"""Shows a decision of the on-line loop and makes it again: `python -m workers.calibration.online.replay FILE`.

Exit status 0 where the same comes out, 1 where not, 2 where the file is no record.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from workers.calibration.online.decisions import Decision, again


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workers.calibration.online.replay", description=__doc__)
    parser.add_argument("file", type=Path, help="a record below deployments/ID/decisions/")
    options = parser.parse_args(arguments)
    try:
        decision = Decision.model_validate_json(options.file.read_bytes())
        replayed = again(decision)
    except (OSError, ValidationError, ValueError) as error:
        sys.stderr.write(f"{options.file}: {error}\n")
        return 2
    lines = [
        f"{decision.action.value} {decision.version or ''}".rstrip()
        + f" while {decision.active} was active: {decision.reason or 'no reason given'}",
        f"{len(decision.record.inputs) if decision.record else 0} requests went in",
        *(
            f"  {name}: {value}" + ("" if replayed.replayed.get(name) == value else f" (now {replayed.replayed[name]})")
            for name, value in replayed.decided.items()
        ),
        "the same comes out" if replayed.same else "something else comes out",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if replayed.same else 1


if __name__ == "__main__":
    sys.exit(main())
