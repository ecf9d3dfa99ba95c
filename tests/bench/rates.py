"""`python -m tests.bench.rates [--layers 32] [--folder FOLDER]`: tokens per second of the forward pass, the divergence
and a compare job, for a random model with the shapes of Llama 3 8B.

The bench is `compare` of `tests.bench.cases`, so the job and the text are those of the demo model. FOLDER keeps the
model, 16 GB with all 32 layers. The rows go to tests/bench/results/PROCESSOR.csv if the model has all its layers.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from tests.bench.cases import MODEL
from tests.bench.processor import device
from tests.bench.rows import Row, parse, read, replaced, write
from tests.bench.run import ROOT, results_file
from tests.bench.sizes import make
from workers.engine.environment import child_environment

WHOLE: Final = 32
# The text needs a tokenizer; the larger vocabulary of the model holds all its tokens.
TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json")


def made(folder: Path, layers: int) -> Path:
    """The model below `folder`, made if it is not there."""
    model = folder / f"llama-3-8b-shapes-{layers}"
    model.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copyfile(MODEL / name, model / name)
    if not (model / "config.json").is_file():
        make(model, layers)
    return model


def renamed(rows: Iterable[Row]) -> list[Row]:
    """Under `8b_…`, so that the rows of the demo model stay."""
    return [row._replace(bench=f"8b_{row.bench}") for row in rows]


def main() -> None:
    """Measures in a process with the environment of a worker's child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=WHOLE)
    parser.add_argument("--folder", type=Path, default=Path(gettempdir()) / "rates")
    given = parser.parse_args()
    environment = child_environment() | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    environment["HEMOSTAT_BENCH_MODEL"] = str(made(given.folder, given.layers))
    environment["TMPDIR"] = str(given.folder)
    command = [sys.executable, "-m", "tests.bench.cases", "compare"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    rows = renamed(parse(done.stdout))
    for row in rows:
        sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")
    if given.layers == WHOLE:
        file = results_file(device(os.environ))
        write(file, replaced(read(file) if file.exists() else [], rows))


if __name__ == "__main__":
    main()
