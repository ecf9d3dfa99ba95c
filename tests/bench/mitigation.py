"""`make bench-mitigation TEXT=FILE`: every modification and mitigation on one model, every bar of docs/recipes held or
missed, into tests/bench/mitigation.csv and docs/recipes/measured.md.

TEXT is WikiText-2's raw test file (or any text with ` = Title = ` lines). Its articles are dealt out in turn: one half
calibrates and fits, the other is scored; the shipped evaluation text is the domain that nothing is fitted on. Hidden
states come from vLLM, divergences and intervals from the code that judges jobs. A bar that is missed stays as `met` 0.

A case's rows carry the mark of its recipe, and the versions of the surgery and of those of its steps that have one.
Rows of before versions were kept carry none. Processor and number of threads stand in no row: the page tells in words
what is known of them.

`--only PATTERN` runs cases whose name has PATTERN in it and replaces their rows; `--model FOLDER --as NAME` takes
another checkpoint.
"""

import argparse
import json
import re
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engine import environment

environment.prepare()

import numpy as np
import torch
from pydantic import TypeAdapter

from app.contracts.errors import HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.recipes.base import Step
from app.recipes.merge import AdapterLora, MergeLinear
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.bench import mitigation_page
from tests.bench.cases import MODEL, BenchContext
from tests.bench.mitigation_cases import CASES, Bar, Case, Model
from tests.bench.mixture import make_mixture
from tests.bench.rows import Row, read, replaced, write
from workers.distributions.divergence import Divergence
from workers.distributions.head import Head
from workers.distributions.intervals import ratio_intervals
from workers.engine.room import EngineRoom
from workers.measuring.calibration_text import loader_without_sampler
from workers.measuring.passes import divergence_of
from workers.measuring.positions import positions_of
from workers.surgery.application import SURGERY_VERSION
from workers.surgery.import_gguf import demo_gguf, import_gguf
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.steps import runner_of
from workers.surgery.store import CheckpointStore
from workers.text.documents import TextDocument
from workers.text.shipped import load_shipped
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows

RESULTS = Path(__file__).with_name("mitigation.csv")
BENCH = "mitigation"
WINDOW = 512
# Of each article and document so many characters are scored: more documents, narrower intervals.
CHARACTERS = 3500
ARTICLES, DOCUMENTS = 20, 24
# Checkpoints stay for the cases that are held against theirs, in this run and the next; seconds are in their manifests.
HOME, CHECKPOINT_BYTES = MODEL.parent / "bench-mitigation", 24 * 1024**3
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TITLE = re.compile(r"^ = [^=].* = $", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """One candidate: KL sums and token counts of each document, by text."""

    sums: dict[str, np.ndarray[Any, Any]]
    counts: dict[str, np.ndarray[Any, Any]]


class Bench:
    """One model, its texts, and what was measured of it so far."""

    def __init__(self, model: Path, text: Path, home: Path) -> None:
        self.info = inspect(model)
        (home / "texts").mkdir(parents=True, exist_ok=True)
        self.settings = Settings(home=home, text_root=home / "texts", checkpoint_budget_bytes=CHECKPOINT_BYTES)
        self.store = CheckpointStore(home / "checkpoints", self.settings.checkpoint_budget_bytes)
        articles = articles_of(text.read_text(encoding="utf-8"))
        fitted, scored = articles[0::2], articles[1::2]
        lines = (json.dumps({"id": f"fit{n}", "domain": "wiki", "text": one}) for n, one in enumerate(fitted))
        (home / "texts" / "fit.jsonl").write_text("\n".join(lines))
        tokenizer = load_tokenizer(model)
        documents = {
            "wiki": [TextDocument(f"w{n}", "wiki", text=one[:CHARACTERS]) for n, one in enumerate(scored[:ARTICLES])],
            "unfitted": [_short(document) for document in load_shipped("evaluation", documents=DOCUMENTS)],
        }
        self.corpora: dict[str, Corpus] = {
            name: make_windows(many, tokenizer, WINDOW) for name, many in documents.items()
        }
        self.context = BenchContext(self.settings, f"bench-{uuid.uuid4().hex}")
        self.room = EngineRoom(self.settings)
        self.head = Head.load(model)
        self.texts = loader_without_sampler(self.settings, model)
        self.hidden = {name: self._hidden(self.info, corpus) for name, corpus in self.corpora.items()}
        self.known: dict[str, Measured] = {}

    def recipe(self, given: Sequence[dict[str, Any]]) -> Recipe:
        """Steps, on the bench's own calibration text unless they name one."""
        steps = []
        for step in given:
            calibrated = "calibration" in _fields(step["type"])
            steps.append(({"calibration": {"source": "file", "path": "fit.jsonl"}} if calibrated else {}) | step)
        return RECIPE.validate_python(steps)

    def modified(self, case: Case) -> Modified:
        """The case's checkpoint, which says in how many seconds it was made."""
        with ExitStack() as kept:
            folders = {
                name: kept.enter_context(self._applied(self.recipe(recipe))).path
                for name, recipe in case.beside.items()
            }
            recipe = self.recipe(case.recipe)
            if case.ablation:
                recipe = tuple(case.ablation.model_validate(step.model_dump()) for step in recipe)
            return self._applied(recipe, folders)

    def _applied(self, recipe: Recipe, folders: Mapping[str, Path] | None = None) -> Modified:
        """`folders`: results that steps take, by name."""

        def others(step: Step) -> Path | None:
            if isinstance(step, AdapterLora):
                return (folders or {})[step.adapter] / "adapter"
            return (folders or {})[step.other] if isinstance(step, MergeLinear) else None

        return apply(self.info, recipe, device="cpu", store=self.store, calibration=self.texts, others=others)

    def measure(self, modified: Modified) -> Measured:
        """KL of the candidate on every text."""
        info = inspect(modified.path)
        head = Head.load(info.path)
        sums, counts = {}, {}
        for name, corpus in self.corpora.items():
            engine = self.room.engine(info, WINDOW)
            values, _ = divergence_of(
                engine,
                corpus.windows,
                lambda index, name=name: self.hidden[name][index],  # type: ignore[misc]
                Divergence(self.head, head, device="cpu"),
                context=self.context,
                phase="candidate",
            )
            document = np.asarray(positions_of(corpus).document)
            kl = np.asarray(values.kl, dtype=np.float64)
            sums[name] = np.bincount(document, weights=kl)
            counts[name] = np.bincount(document).astype(np.float64)
        return Measured(sums, counts)

    def rows(self, case: Case) -> Iterator[Row]:
        """Everything of one case; those that it is held against must have been measured before."""
        began = time.perf_counter()
        with self.modified(case) as modified:
            made = modified.manifest
            measured = self.known[case.name] = self.measure(modified)
        yield Row(BENCH, case.name, "recipe", case.mark, "mark")
        for metric, version in versions_of(case).items():
            yield Row(BENCH, case.name, metric, version, "version")
        yield Row(BENCH, case.name, "seconds", made.steps[-1].seconds, "s")
        yield Row(BENCH, case.name, "bits_per_weight", made.bits_per_weight or 16.0, "bits")
        yield Row(BENCH, case.name, "model_bytes", made.model_nominal_bytes, "bytes")
        yield Row(BENCH, case.name, "file_bytes", made.file_bytes, "bytes")
        if made.sparsity:
            yield Row(BENCH, case.name, "zeros", made.sparsity, "share")
        for text in self.corpora:
            yield from _with_interval(case.name, f"kl_{text}", measured.sums[text], measured.counts[text], "nats")
        for bar in case.bars:
            yield from self._bar(case, bar, measured)
        sys.stderr.write(f"{case.name}: {time.perf_counter() - began:.0f} s\n")

    def _bar(self, case: Case, bar: Bar, measured: Measured) -> Iterator[Row]:
        if bar.against not in self.known:
            sys.stderr.write(f"{case.name}: not held against {bar.against}, which could not be measured\n")
            return
        base = self.known[bar.against].sums[bar.text]
        name = f"ratio_to_{bar.against}_{bar.text}"
        rows = list(_with_interval(case.name, name, measured.sums[bar.text], base, "ratio"))
        yield from rows
        fitted = measured.sums["wiki"].sum() / self.known[bar.against].sums["wiki"].sum()
        limit = bar.limit(float(fitted))
        yield Row(BENCH, case.name, f"{name}_bar", limit, "ratio")
        yield Row(BENCH, case.name, f"{name}_met", float(rows[0].value <= limit), "yes=1")

    def _hidden(self, info: CheckpointInfo, corpus: Corpus) -> list[torch.Tensor]:
        engine = self.room.engine(info, WINDOW)
        tokens = [window.tokens for window in corpus.windows]
        return [hidden_TD for _, hidden_TD in engine.score(tokens)]


def versions_of(case: Case) -> dict[str, int]:
    """Metric → version: `version_surgery`, and `version_N` of the recipe's N-th step, from 1, where it has one of its
    own; of recipes beside, with their name before the number.

    Checkpoints are stored under keys that hold these, so one of an earlier run has them, too.
    """
    found = {mitigation_page.SURGERY: SURGERY_VERSION}
    for name, given in {"": case.recipe, **case.beside}.items():
        for number, step in enumerate(RECIPE.validate_python(given), 1):
            version = getattr(runner_of(step), "version", None)
            if version is not None:
                found[f"version_{name}_{number}" if name else f"version_{number}"] = version
    return found


def articles_of(text: str) -> list[str]:
    """Articles of a WikiText file, the longest run of text between two titles each."""
    starts = [match.start() for match in TITLE.finditer(text)] or [0]
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True) if b - a > 1000]


def with_those_held_against(cases: Iterable[Case]) -> list[Case]:
    """The cases, each behind those that it is held against: every case's rows are written as soon as they are known."""
    ordered: dict[str, Case] = {}
    for case in cases:
        for other in case.against:
            ordered.setdefault(other, CASES[other])
        ordered.setdefault(case.name, case)
    return list(ordered.values())


def main(arguments: list[str]) -> None:
    """Runs the cases and writes their rows beside those of earlier runs."""
    parser = argparse.ArgumentParser(description="bench of modifications and mitigations")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--as", dest="name", default="")
    given = parser.parse_args(arguments)
    if given.model != MODEL and not given.name:
        parser.error("--model takes --as NAME: rows without a name are the demo model's")
    if given.model == MODEL and not (MODEL / "model.safetensors").is_file():
        import_gguf(demo_gguf(), MODEL)
    chosen = with_those_held_against(case for name, case in CASES.items() if re.search(given.only, name))
    if given.model != MODEL:
        chosen = [case for case in chosen if case.model == "demo"]
    benches: dict[str, Bench] = {}
    for case in chosen:
        if case.model not in benches:
            benches[case.model] = _bench(case.model, given.model, given.text)
        try:
            found = list(benches[case.model].rows(case))
        except HemostatError as error:
            sys.stderr.write(f"{case.name}: {error.detail}\n")
            continue
        named = [row._replace(bench=f"{BENCH}:{given.name}" if given.name else BENCH) for row in found]
        # what is measured is kept, also when the next case fails
        write(RESULTS, replaced(read(RESULTS) if RESULTS.is_file() else [], named))
        if not given.name:
            mitigation_page.update()
        for row in named:
            sys.stdout.write(f"{row.case},{row.metric},{row.value:.5g},{row.unit}\n")
        sys.stdout.flush()


def _bench(kind: Model, model: Path, text: Path) -> Bench:
    """The bench of the demo model, or of the small mixture, which is trained on the texts that the bench fits on."""
    if kind == "demo":
        return Bench(model, text, HOME)
    fitted = articles_of(text.read_text(encoding="utf-8"))[0::2]
    return Bench(make_mixture(HOME / "mixture-model", fitted, position=WINDOW), text, HOME / "mixture")


def _with_interval(
    case: str, metric: str, sums_N: np.ndarray[Any, Any], counts_N: np.ndarray[Any, Any], unit: str
) -> Iterator[Row]:
    mean, _, low, high = ratio_intervals(sums_N[None], counts_N[None], seed=0)
    yield Row(BENCH, case, metric, float(mean[0]), unit)
    yield Row(BENCH, case, f"{metric}_low", float(low[0]), unit)
    yield Row(BENCH, case, f"{metric}_high", float(high[0]), unit)


def _fields(kind: str) -> set[str]:
    from app.recipes.recipe import STEPS

    return set(STEPS[kind].model_fields)


def _short(document: TextDocument) -> TextDocument:
    if document.text is None:
        return document
    return TextDocument(document.id, document.domain, text=document.text[:CHARACTERS])


if __name__ == "__main__":
    main(sys.argv[1:])
