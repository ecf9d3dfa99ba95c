"""`python -m tests.bench.decoders`: the thirteen decoders on the demo model, 4 bits against the original; writes
tests/bench/decoders.csv.

What is run is the trajectory job as it comes: 32 prompts of the shipped evaluation text, 128 tokens, every decoder with
its default parameters. The decoders are dealt to several jobs, so that what is measured stays where a later one fails.
A decoder's texts are the same in whichever job: prompts, random numbers and the prompts that run together are. Each job
runs in a process of its own with the environment of a worker's child.

`python -m tests.bench.decoders PART …` measures some parts and leaves the rows of the others. `--into FOLDER` keeps the
reports there, and what it has is not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.contracts.decoding import DECODERS
from app.contracts.report import Mean
from app.kinds.trajectory.report import Cell, Ratio, TextStatistics, TrajectoryReport
from tests.bench import processor
from tests.bench.rows import Row, read, replaced, write
from workers.engine.environment import child_environment

RESULTS: Final = Path(__file__).with_name("decoders.csv")
ROOT: Final = Path(__file__).resolve().parents[2]
BENCH: Final = "decoders"
# One engine a part. What looks ahead takes four to eight rows of the model a prompt, and as much longer.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "vllm": ("greedy", "temperature", "top_p", "top_k", "min_p"),
    "samplers": ("eta", "typical", "mirostat"),
    "penalties": ("fsd", "fsd_d"),
    "beam": ("beam",),
    "contrastive": ("contrastive",),
    "diverse_beam": ("diverse_beam",),
}
QUICK: Final = {"prompts": 2, "tokens": 8}
QUICK_DECODERS: Final = ("greedy", "eta", "beam")
NGRAM: Final = "4"
Json = dict[str, Any]


def request(decoders: Iterable[str], **changes: int) -> Json:
    """The job: what is not said here is the default."""
    return {
        "kind": "trajectory",
        "reference": {"model": "smollm2-135m"},
        "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
        "decoders": [{"name": name} for name in decoders],
        "shapings": [],  # of the distances after a cut nothing is written down
        "seed": 0,
    } | changes


def rows_of(report: TrajectoryReport, writing: Mapping[str, float]) -> list[Row]:
    """What a job found of each of its decoders; `writing` are the seconds in which both models wrote their texts."""
    references = {one.decoder: one.text for one in report.reference_texts}
    return [row for cell in report.cells for row in _of_cell(cell, references[cell.decoder], writing[cell.decoder])]


def _of_cell(cell: Cell, reference: TextStatistics, seconds: float) -> Iterator[Row]:
    name, parted, grown = cell.decoder, cell.first_divergence, cell.amplification
    yield Row(BENCH, name, "prompts", cell.prompts, "count")
    yield from _mean(name, "parted", parted.diverged, "share")
    median = zip(("", "_low", "_high"), (parted.median, *parted.median_ci), strict=True)
    yield from (Row(BENCH, name, f"first_different{end}", at, "token") for end, at in median if at is not None)
    yield from _mean(name, "shared_prefix", parted.shared_prefix, "tokens")
    for edited in cell.edit_distance:
        yield from _mean(name, f"edit_distance_{edited.tokens}", edited.distance, "share")
    yield from _mean(name, "kl_reference_text", cell.kl_reference_text, "nats")
    yield from _mean(name, "kl_candidate_text", cell.kl_candidate_text, "nats")
    # At the positions that both texts have: what the factor is the ratio of.
    yield from _mean(name, "kl_reference_both", grown.kl_reference_text or cell.kl_reference_text, "nats")
    yield from _mean(name, "kl_candidate_both", grown.kl_candidate_text or cell.kl_candidate_text, "nats")
    yield from _ratio(name, "kl_factor", grown.kl)
    yield from _ratio(name, "token_factor", grown.tokens)
    for whose, text in (("reference", reference), ("candidate", cell.text)):
        yield from _mean(name, f"repetition_{whose}", text.repetition[NGRAM], "share")
        yield from _mean(name, f"entropy_{whose}", text.entropy, "nats")
        yield from _mean(name, f"length_{whose}", text.length, "tokens")
    yield from _mean(name, "repetition_change", cell.change.repetition[NGRAM], "share")
    yield Row(BENCH, name, "seconds", seconds, "s")


def _mean(case: str, metric: str, of: Mean, unit: str) -> Iterator[Row]:
    """With its interval; no row of what there is not."""
    values = zip(("", "_low", "_high"), (of.mean, *(of.ci or ())), strict=False)
    return (Row(BENCH, case, f"{metric}{end}", value, unit) for end, value in values if value is not None)


def _ratio(case: str, metric: str, of: Ratio) -> Iterator[Row]:
    return _mean(case, metric, Mean(mean=of.value, ci=of.ci), "ratio")


def of_job(part: str, report: TrajectoryReport, seconds: float) -> list[Row]:
    """What is told of a job as a whole. Its noise floor is that of its first decoder's texts."""
    case = f"job_{part}"
    found = [Row(BENCH, case, "seconds", seconds, "s")]
    found += [Row(BENCH, case, f"{phase}_seconds", took, "s") for phase, took in report.provenance.seconds.items()]
    found.append(Row(BENCH, case, "generated_tokens", report.generated_tokens, "tokens"))
    return found + list(_mean(case, "noise_floor", report.noise_floor.kl, "nats"))


def measured(home: Path, part: str, asked: Json) -> list[Row]:
    """The rows of a job, run in a process of its own unless its report is in `home`."""
    file = home / f"{part}.json"
    if not file.is_file():
        subprocess.run(
            [sys.executable, "-m", "tests.bench.decoders_job", str(home), part, json.dumps(asked)],
            check=True,
            cwd=ROOT,
            env=child_environment() | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )
    kept = json.loads(file.read_text(encoding="utf-8"))
    report = TrajectoryReport.model_validate(kept["report"])
    return rows_of(report, kept["writing"]) + of_job(part, report, kept["seconds"])


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The processor first, then decoders as they are told everywhere, then the jobs."""
    places = {case: place for place, case in enumerate(("processor", *DECODERS, *(f"job_{part}" for part in PARTS)))}
    return sorted(rows, key=lambda row: places[row.case])


def main(arguments: Sequence[str]) -> None:
    """Measures and writes the CSV anew behind each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decoders")
    parser.add_argument("--quick", action="store_true", help="see that it works; writes nothing")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="keep the reports, and do not measure again what it has"
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without any, all")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    machine = processor.here(BENCH, child_environment())
    rows = read(RESULTS) if given.parts and RESULTS.exists() else []
    if rows and machine not in rows:
        parser.error(f"the other rows of {RESULTS.name} are not from {machine.metric}: measure all parts")
    with tempfile.TemporaryDirectory() as folder:
        home = (given.into or Path(folder)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        if given.quick:
            _tell(measured(home, "quick", request(QUICK_DECODERS, **QUICK)))
            return
        for part in given.parts or PARTS:
            fresh = measured(home, part, request(PARTS[part]))
            rows = in_order(replaced(rows, [machine, *fresh]))
            write(RESULTS, rows)
            _tell(fresh)


def _tell(rows: Iterable[Row]) -> None:
    for row in rows:
        sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
