"""`python -m tests.bench.calibrators --text WIKITEXT --scratch FOLDER [MODIFICATION …]`: what each calibrator takes
back of each modification, by `calibrate` jobs of the demo model; writes tests/bench/calibrators.csv, each modification
as soon as it is measured.

*own* is text of the fitted domains, *other* that of five other shipped domains and of WikiText-2. One job fits on the
shipped calibration text and tests on the shipped evaluation text. The shipped evaluation text has too few tokens of the
fitted domains. So for round to nearest a second job swaps fitted and tested documents, and both tests are pooled: each
document is tested once, by corrections that did not see it. Steps that look at calibration data have one job, and no
document of the calibration text in its test.

Rows, per modification and calibrator: `removed`, the share of the raw KL that is taken back, with its 95 % interval by
document; `removed_least`, that of the domain that gains least; tokens and raw KL of a side. Per modification: whether
the job's proof passed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.torch import load_file

from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from app.models.checkpoint import inspect
from app.models.registry import register
from app.settings import Settings
from tests.bench.cases import MODEL, RECIPE, BenchContext
from tests.bench.mitigation import articles_of
from tests.bench.rows import Row, read, replaced, write
from workers.calibration.job import calibrate
from workers.distributions.intervals import ratio_intervals
from workers.engine.room import EngineRoom
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore
from workers.text.shipped import shipped_documents

RESULTS: Final = Path(__file__).with_name("calibrators.csv")
# The first five have documents in both shipped texts; the last two are halved.
OWN: Final = ("prose", "exposition", "dialogue", "technical", "letters", "instructions", "reports")
HALVED: Final = OWN[5:]
ARTICLES: Final = 40
LETTERS: Final = 1000
ALONE: Final = ("temperature", "confidence", "token_bias", "lowrank")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Modification:
    """A recipe; whether its steps look at the shipped calibration text, and how many jobs fit it."""

    recipe: tuple[dict[str, Any], ...]
    looks: bool = False
    jobs: int = 1
    blocks: bool = True

    @property
    def calibrators(self) -> tuple[str, ...]:
        """What is fitted."""
        return (*ALONE, "blocks") if self.blocks else ALONE


MODIFICATIONS: Final[Mapping[str, Modification]] = {
    "rtn_4": Modification((RECIPE,), jobs=2),
    "wanda_50": Modification(({"type": "prune.wanda", "sparsity": 0.5},), looks=True),
    "gptq_4_packed": Modification(({"type": "quantize.gptq", "bits": 4, "form": "packed"},), looks=True),
    "svdllm_20": Modification(({"type": "lowrank.svdllm", "ratio": 0.2},), looks=True),
    "merge_magnitude_50": Modification(({"type": "merge.linear", "other": "magnitude_50"},)),
    "context_linear_2": Modification(({"type": "context.linear", "factor": 2},)),
    # A correction after each block needs models of the same depth.
    "layers_14_15": Modification(({"type": "prune.layers", "layers": [14, 15]},), blocks=False),
}


@dataclass(frozen=True)
class Tested:
    """One job's test: KL of each position raw (under "") and per calibrator, and the position's document and domain."""

    kl: Mapping[str, Array]
    document_T: NDArray[np.str_]
    domain_T: NDArray[np.str_]
    report: CalibrateReport


class Bench:
    """A home with the demo model and the texts of both jobs."""

    def __init__(self, scratch: Path, text: Path) -> None:
        self.settings = Settings(home=scratch, text_root=scratch / "texts")
        (scratch / "texts").mkdir(parents=True, exist_ok=True)
        register(self.settings.models_file, "smollm2-135m", MODEL)
        store = CheckpointStore(self.settings.home / "checkpoints", self.settings.checkpoint_budget_bytes)
        other = CalibrateRequest.model_validate(_request(({"type": "prune.magnitude", "sparsity": 0.5},)))
        made = apply(inspect(MODEL), other.candidate.recipe, device="cpu", store=store)
        register(self.settings.models_file, "magnitude_50", made.path)
        self._wiki = [
            {"id": f"article {at}", "domain": "wikitext", "text": article[:LETTERS]}
            for at, article in enumerate(articles_of(text.read_text(encoding="utf-8"))[:ARTICLES])
        ]
        self._room = EngineRoom(self.settings)

    def run(self, name: str) -> list[Row]:
        """All rows of a modification."""
        modification = MODIFICATIONS[name]
        tests = [self._job(f"{name}-{job}", modification, job) for job in range(modification.jobs)]
        return list(rows_of(name, modification.calibrators, tests))

    def _job(self, name: str, modification: Modification, job: int) -> Tested:
        fit, test = self._documents(job, modification)
        request = _request(modification.recipe) | {
            "text": self._text(f"{name}-fit", fit),
            "test_text": self._text(f"{name}-test", test),
            "calibrators": modification.calibrators,
        }
        context = BenchContext(self.settings, f"{name}-{time.time_ns()}")
        report = calibrate(CalibrateRequest.model_validate(request), context, self._room)
        rows = pq.read_table(context.output / "raw.parquet", columns=["document", "domain"])
        (file,) = context.scratch.glob("calibrate-*/test-*.part/rows.safetensors")
        kept = load_file(file)
        names = ("", *(row.calibrator for row in report.test.table))
        kl = {name: kept[f"{number} column of KL"].numpy() for number, name in enumerate(names)}
        document_T, domain_T = (np.asarray(rows[column].to_pylist()) for column in ("document", "domain"))
        return Tested(kl, document_T, domain_T, report)

    def _documents(self, job: int, modification: Modification) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Fitted and tested documents; the second job swaps those of the fitted domains."""
        calibration, evaluation = (_shipped(corpus) for corpus in ("calibration", "evaluation"))
        whole = [one for one in calibration if one["domain"] in OWN and one["domain"] not in HALVED]
        halved = [one for one in calibration if one["domain"] in HALVED]
        own = [one for one in evaluation if one["domain"] in OWN]
        first, second = whole + halved[::2], own + halved[1::2]
        if job:
            return second, first
        unseen = own if modification.looks else second
        return first, [*unseen, *(one for one in evaluation if one["domain"] not in OWN), *self._wiki]

    def _text(self, name: str, documents: Sequence[dict[str, Any]]) -> dict[str, str]:
        lines = [json.dumps(document) for document in documents]
        (self.settings.home / "texts" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {"source": "file", "path": f"{name}.jsonl"}


def _request(recipe: Sequence[dict[str, Any]]) -> dict[str, Any]:
    model = {"model": "smollm2-135m"}
    return {"kind": "calibrate", "reference": model, "candidate": model | {"recipe": list(recipe)}}


def _shipped(corpus: str) -> list[dict[str, Any]]:
    """Documents of a shipped corpus, as a file has them; ids of both corpora differ."""
    return [
        {**one.model_dump(mode="json", exclude_none=True), "id": f"{corpus} {one.id}"}
        for one in shipped_documents(corpus)
    ]


def rows_of(name: str, calibrators: Iterable[str], tests: Sequence[Tested]) -> Iterator[Row]:
    """The rows of a modification, from the tests of its jobs together."""
    document_T, domain_T = (
        np.concatenate([getattr(one, column) for one in tests]) for column in ("document_T", "domain_T")
    )
    own_T = np.isin(domain_T, OWN)
    raw_T = np.concatenate([one.kl[""] for one in tests])
    yield Row("calibrators", f"{name}/job", "passed", float(tests[0].report.test.passed), "yes=1")
    for calibrator in calibrators:
        case = f"{name}/{calibrator}"
        kl_T = np.concatenate([one.kl[calibrator] for one in tests])
        chosen = tests[0].report.calibrator == calibrator
        yield Row("calibrators", case, "chosen", float(chosen), "yes=1")
        for side, here_T in (("own", own_T), ("other", ~own_T)):
            yield Row("calibrators", case, f"{side}_tokens", int(here_T.sum()), "tokens")
            yield Row("calibrators", case, f"{side}_kl_raw", float(raw_T[here_T].mean()), "nats")
            mean, low, high = share(raw_T[here_T], kl_T[here_T], document_T[here_T])
            least = min(
                share(raw_T[at_T], kl_T[at_T], document_T[at_T])[0]
                for at_T in (domain_T == domain for domain in np.unique(domain_T[here_T]))
            )
            for end, value in (("", mean), ("_low", low), ("_high", high), ("_least", least)):
                yield Row("calibrators", case, f"{side}_removed{end}", value, "share")


def share(raw_T: Array, kl_T: Array, document_T: NDArray[np.str_]) -> tuple[float, float, float]:
    """The share of the raw KL that is taken back, with its interval by document."""
    _, at_T = np.unique(document_T, return_inverse=True)
    saved_N, raw_N = (np.bincount(at_T, column_T) for column_T in (raw_T - kl_T, raw_T))
    mean, _, low, high = ratio_intervals(saved_N[None], raw_N[None], seed=0)
    return float(mean[0]), float(low[0]), float(high[0])


def main() -> None:
    """Measures what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MODIFICATION", help=", ".join(MODIFICATIONS))
    parser.add_argument("--text", type=Path, required=True, help="a file of WikiText-2")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for checkpoints and states")
    given = parser.parse_args()
    bench = Bench(given.scratch, given.text)
    for name in given.names or MODIFICATIONS:
        began = time.monotonic()
        rows = bench.run(name)
        write(RESULTS, replaced(read(RESULTS) if RESULTS.is_file() else [], rows))
        sys.stdout.write(f"{name}: {time.monotonic() - began:.0f} s\n")
        sys.stdout.writelines(f"  {row.case} {row.metric} {row.value:.5g}\n" for row in rows)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
