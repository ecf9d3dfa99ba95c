"""Outside of a kind's own folders only the registry knows kinds."""

import ast
import re
from pathlib import Path

from app.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[4]
# Where a kind is named all the same, and why.
COMPARES = "compares the reports of compare jobs"
ALLOWED = {
    "app/kinds/registry.py": "the list of kinds",
    "workers/diagnosis/registry.py": "loads what a first job would wait for",
    "app/cli/diff.py": COMPARES,
    "app/jobs/diff_routes.py": COMPARES,
    "app/jobs/differences.py": COMPARES,
    "app/jobs/report_routes.py": "the page of a compare job links to its differences",
    "workers/diagnosis/diff/": COMPARES,
    "app/cli/demo.py": "the demo is a compare job",
    "app/cli/flips.py": "a table of the answers of tasks jobs",
    "app/cli/flips_sweep.py": "sends tasks jobs for a table of flips",
    "app/cli/profiles.py": "what a profile holds, in words",
    "app/cli/mitigate.py": "the commands that follow a mitigate report",
    "app/deployments/": "a deployment is fitted by calibrate jobs",
    "app/jobs/examples.py": "an example of a compare job's answers",
    "app/jobs/faults.py": "what a name of a calibrator is, in words",
    "workers/calibration/": "the room of calibrate jobs; it opens the models of a deployment as a compare job does",
    "workers/diagnosis/mitigate/export.py": "leaves the compare request of what it recommends",
    "workers/answering/answers.py": "the unit of a score in tasks reports",
    "app/reports/": "what several kinds say alike, and the command that finds the layers that cause the damage",
}
# Words of a recipe, a request or a phase that are names of kinds as well.
OTHER_WORDS = {"sweep", "tasks"}


def named(file):
    """The kinds that a module names: their classes and modules, their names as texts, their metrics."""
    text = file.read_text(encoding="utf-8")
    yield from (name.lower() for name in re.findall(r"\b([A-Z][a-z]+)(?:Request|Report|Submission)\b", text))
    yield from re.findall(r"\b(?:app\.kinds|workers\.diagnosis)\.(\w+)", text)
    owner = {metric.name: name for name, kind in KINDS.items() for metric in kind.metrics}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in OTHER_WORDS:
            yield owner.get(node.value, node.value)


def test_no_other_file_names_a_kind():
    found = []
    for file in [*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")]:
        path = file.relative_to(ROOT).as_posix()
        own = {name for name in KINDS if path.startswith((f"app/kinds/{name}/", f"workers/diagnosis/{name}/"))}
        if not path.startswith(tuple(ALLOWED)) and file.name != "view.py":  # a view names the command that follows
            found += [f"{path}: {name}" for name in sorted(set(named(file)) & KINDS.keys() - own)]
    assert found == []
