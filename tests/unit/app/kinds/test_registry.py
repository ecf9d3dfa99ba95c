"""Outside of a kind's own folders only the registry knows kinds."""

import re
from pathlib import Path

from app.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[4]
# Where a kind's classes are named all the same, and why.
ALLOWED = {
    "app/cli/diff.py": "compares the reports of compare jobs",
    "app/jobs/diff_routes.py": "compares the reports of compare jobs",
    "app/jobs/differences.py": "compares the reports of compare jobs",
    "app/web/sections/difference.py": "compares the reports of compare jobs",
    "workers/diagnosis/diff/": "compares the reports of compare jobs",
    "app/cli/flips_sweep.py": "sends tasks jobs for a table of flips",
    "app/cli/mitigate.py": "the commands that follow a mitigate report",
    "app/deployments/": "a deployment is fitted by calibrate jobs",
    "workers/calibration/": "the room of calibrate jobs",
    "workers/diagnosis/tasks/job.py": "measures by a comparison",
    "app/web/": "pages of kinds that are not lists of blocks yet",
}


def test_no_other_file_names_a_kinds_request_or_report() -> None:
    named = re.compile(rf"\b({'|'.join(kind.capitalize() for kind in KINDS)})(Request|Report|Submission)\b")
    found = []
    for file in [*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")]:
        path = file.relative_to(ROOT).as_posix()
        if path.startswith(tuple(ALLOWED)):
            continue
        for name in named.finditer(file.read_text(encoding="utf-8")):
            own = tuple(f"{room}/{name[1].lower()}/" for room in ("app/kinds", "workers/diagnosis"))
            if not path.startswith(own):
                found.append(f"{path}: {name[0]}")
    assert found == []
