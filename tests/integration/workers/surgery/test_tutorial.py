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
PAGE = ROOT / "docs" / "recipes" / "adding.md"
BLOCK = re.compile(
    r"^```python (?P<how>append|new|replace)=(?P<file>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
USE = """
import json, sys
from pathlib import Path
from pydantic import TypeAdapter
from app.recipes.recipe import Recipe, STEP_TYPES
from app.models.checkpoint import inspect
from app.models.strength import direction_of
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

recipe = TypeAdapter(Recipe).validate_python(
    [{"type": "prune.random", "sparsity": 0.5}, {"type": "quantize.rtn", "bits": 4, "group_size": 32}]
)
with apply(inspect(Path(sys.argv[1])), recipe, store=CheckpointStore(Path(sys.argv[2]), 10**9)) as modified:
    way = direction_of("prune.random", "seed")
    done = modified.manifest
    print(json.dumps([done.sparsity, done.bits_per_weight, "prune.random" in STEP_TYPES, way and way.kind]))
"""


def test_the_page_holds(tiny: Callable[..., Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("app", "workers"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(blocks) == 3
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

    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "tests/unit/workers/surgery")
    sparsity, bits, listed, way = json.loads(run("-c", USE, str(tiny()), str(tmp_path / "store")).splitlines()[-1])
    assert 0.5 <= sparsity < 0.75  # round to nearest makes some more
    assert bits == 4 + 20 / 32
    assert listed
    assert way == "unknown", "which way its number is stronger"
