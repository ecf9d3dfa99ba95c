"""The page on adding a modification, followed to the letter on a copy of the source."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "contributors" / "adding-a-step.md"
BLOCK = re.compile(
    r"^```python (?P<how>append|new|replace)=(?P<file>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
USE = """
import json, sys
from pathlib import Path
from pydantic import TypeAdapter
from app.contracts.request import Knob
from app.models.checkpoint import inspect
from app.models.shares import shares
from app.models.strength import direction_of
from app.recipes.recipe import Recipe
from app.reports import describe
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.treatment import Untreated, treat
from workers.measuring.subject import Subject
from workers.diagnosis.mitigate.treatments import arms_of
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

steps = [{"type": "prune.random", "sparsity": 0.5}, {"type": "quantize.rtn", "bits": 4, "group_size": 32}]
recipe = TypeAdapter(Recipe).validate_python(steps)
info = inspect(Path(sys.argv[1]))
with apply(info, recipe, device="cpu", store=CheckpointStore(Path(sys.argv[2]), 10**9)) as modified:
    done = modified.manifest
site = next(one for one in sites_of(info) if one.name == "layers.1.mlp.down_proj")
treated = treat(Untreated(info, recipe[:1], info), [(site, "size")])
print(json.dumps({
    "sparsity": done.sparsity,
    "bits": done.bits_per_weight,
    "seed": direction_of("prune.random", "seed").kind,
    "described": describe.recipe(steps),
    "attributed": treated.why,
    "recommended": sorted(step["sparsity"] for step in treated.recipe),
    "tried": len(arms_of(Subject(info, recipe, 0), "prune.gradient")),
    "swept": shares(info, recipe, Knob(step=0, field="sparsity", values=(0.25, 0.5))),
}))
"""
# Of the tests that are there, those that ask something of every type of step.
ASKING = (
    "tests/unit/bench/test_mitigation_cases.py",
    "tests/unit/bench/test_recipe_pages.py::test_every_type_of_step_is_named_on_a_page_of_a_family",
    "tests/unit/app/recipes",
    "tests/unit/app/models/test_least_size.py",
    "tests/unit/app/models/test_strength.py",
    "tests/unit/app/models/steps/test_order.py",
    "tests/unit/workers/surgery/test_prune_random.py",
)


def test_the_page_holds(tiny: Callable[..., Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("app", "workers", "tests", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert [block["file"] for block in blocks if block["file"].startswith(("app/", "workers/"))] == [
        "app/recipes/prune.py",
        "workers/surgery/prune_random.py",
    ], "a class and what it does: no other file of the product names a step"
    for block in blocks:
        file = copy / block["file"]
        if block["how"] == "replace":
            old, new = block["body"].split("---\n")
            text = file.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{block['file']} has not exactly one place that says:\n{old}"
            file.write_text(text.replace(old, new), encoding="utf-8")
        elif block["how"] == "append":
            with file.open("a", encoding="utf-8") as stream:
                stream.write(block["body"])
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["body"], encoding="utf-8")

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pytest", "-q", "-p", "no:cacheprovider", *ASKING)
    found = json.loads(run("-c", USE, str(tiny()), str(tmp_path / "store")).splitlines()[-1])
    assert 0.5 <= found.pop("sparsity") < 0.75  # round to nearest makes some more
    assert found.pop("attributed").endswith("sparsity 0.25 instead of 0.5")
    assert found.pop("tried") > 0
    assert found == {
        "bits": 4 + 20 / 32,
        "seed": "unknown",
        "described": "random pruning 50.0 %, then 4-bit RTN, group 32, asymmetric",
        "recommended": [0.25, 0.5, 0.5],
        "swept": [0.25, 0.5],
    }
