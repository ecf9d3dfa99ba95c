"""The pipeline of every kind that compares one candidate as a whole with its reference.

    class _Compare(PairAttempt):
        def run(self):
            with self.pair() as pair:                        # text, surgery
                measured = self.measure(pair, "fast")        # reference, noise floor, candidate

The order keeps one model in memory at a time: text, surgery, reference (from the store where it was scored before).
Then head check, noise floor, a packed candidate's dequantized twin, candidate. The candidate's values go to disk as
they come, so that the attempt after a lost one goes on where it broke off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.contracts.report import KernelTerm, Report
from app.contracts.request import JobRequest
from app.models.checkpoint import CheckpointInfo, same_model
from app.models.packing import kept_packed
from workers.distributions.divergence import Precision
from workers.distributions.token_values import Positions, TokenValues
from workers.engine.room import EngineRoom
from workers.measuring.assemble import (
    Conditions,
    envelope,
    left_out,
    of_making,
    packed_reference,
    provenance,
    repeated_documents,
    rounded,
)
from workers.measuring.attempt import Attempt, Beside, ReferenceRun
from workers.measuring.attempt import counted as engines_counted
from workers.measuring.beside import divergence_beside
from workers.measuring.classify import Classified
from workers.measuring.floor import Dequantized, Floor, kernel_term, score_dequantized
from workers.measuring.limitations import limits_of
from workers.measuring.passes import divergence_of
from workers.measuring.plan import Scratch, plan_fingerprint
from workers.measuring.positions import positions_of
from workers.measuring.sides import Sides
from workers.measuring.summary import Summary, summarize
from workers.measuring.verdict import decide, sentence
from workers.process.handler import JobContext
from workers.text.documents import TextDocument
from workers.text.token_classes.catalogue import CLASS_COLUMN
from workers.text.windows import Corpus

# The artifact of per-token values, and that which shows what the candidate's recipe did.
TOKENS_FILE: Final = "tokens.parquet"
MANIFEST_FILE: Final = "manifest.json"
R = TypeVar("R", bound=Report)


def compared(request: JobRequest, context: JobContext, room: EngineRoom) -> Measured:
    """A whole comparison of what a request of any kind names; the values of every token go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with engines_counted(room, context):
        attempt = PairAttempt(request, context, room)
        with attempt.pair() as pair:
            measured = attempt.measure(pair, "fast")
            measured.write()
        return measured


@dataclass(frozen=True)
class Pair:
    """Both models and the text. `origin` is the candidate before its recipe."""

    origin: CheckpointInfo
    sides: Sides
    documents: list[TextDocument]
    corpus: Corpus


@dataclass(kw_only=True)
class Measured:
    """The candidate against the reference over the whole text.

    `allowed` are warnings of what the request allows that flatters the candidate.
    """

    request: JobRequest
    context: JobContext
    sides: Sides
    corpus: Corpus
    positions: Positions
    values: TokenValues
    floor: Floor
    kernel_term: KernelTerm | None
    conditions: Conditions
    allowed: tuple[Notice, ...] = ()

    @cached_property
    def summary(self) -> Summary:
        """The blocks of a report that follow from the values."""
        return summarize(
            self.values,
            self.positions,
            [document.domain for document in self.corpus.documents],
            window=self.request.window,
            floor_kl=self.floor.kl,
            seed=self.request.seed,
            context=self.conditions.reference_context,
            check_cancelled=self.context.check_cancelled,
        )

    def reported(self, as_: type[R], **own: Any) -> R:
        """A report of a kind: its `own` fields, and all others that it has as a comparison has them."""
        summary, floor = self.summary, self.floor
        decision = decide(
            summary.excess, self.request.thresholds, nonfinite=summary.nonfinite_positions, floor=summary.floor
        )
        source = provenance(self.request, self.conditions, sides=self.sides, corpus=self.corpus)
        verdict = sentence(
            decision,
            tokens=summary.tokens,
            nonfinite=summary.nonfinite_positions,
            floor=floor.report.kl.mean,
            top1_agreement=summary.top1_agreement,
            perplexity_ratio=summary.perplexity.ratio,
        )
        measured = {
            "verdict": verdict,
            "kernel_term": self.kernel_term,
            "not_tested": self.limits(),
            "warnings": tuple(self.warnings()),
            **summary.blocks(),
            **envelope(self.request, self.context, decision, floor, source),
        }
        return as_(**{name: value for name, value in measured.items() if name in as_.model_fields} | own)

    def limits(self, *, tool_calls: bool = False) -> tuple[Notice, ...]:
        """What the verdict does not speak of."""
        return limits_of(self.corpus, self.positions, self.request.text, tool_calls=tool_calls)

    def warnings(self) -> list[Notice]:
        """What a reader should know of the two models and of the text."""
        found = []
        corpus, sides, summary = self.corpus, self.sides, self.summary
        if sides.reference.weights == sides.candidate.weights and not self.request.candidate.recipe:
            found.append(Warned.SAME_MODEL())
        found += of_making(sides)
        found += rounded(sides, self.conditions.engine.dtype)
        found += packed_reference(sides)
        if sides.packed and not sides.unpacked:
            formats = kept_packed(sides.candidate.info.quantization)
            found.append(Warned.UNKNOWN_KERNEL_TERM(format=formats))
        context = self.conditions.reference_context
        if context is not None:
            found.append(Warned.LONGER_THAN_REFERENCE(tokens=context, position=context - 1))
        if summary.divergence.kl.clusters == "windows":
            found.append(Warned.FEW_DOCUMENTS(documents=summary.documents))
        found += repeated_documents(corpus)
        found += self.allowed
        if corpus.left_out_tokens:
            found.append(Warned.LONE_TOKENS(tokens=corpus.left_out_tokens))
        return found + left_out(summary.nonfinite_positions)

    def write(self, classes: Classified | None = None) -> None:
        """The values of every token, with its classes, and what the recipe did."""
        folder, documents, manifest = self.context.output, self.corpus.documents, self.sides.modified.manifest
        masks = {} if classes is None else classes.masks
        self.values.to_parquet(
            folder / TOKENS_FILE,
            self.positions,
            [document.id for document in documents],
            [document.domain for document in documents],
            flags={f"{CLASS_COLUMN}{name}": mask for name, mask in masks.items()},
        )
        if manifest.recipe:
            (folder / MANIFEST_FILE).write_text(f"{manifest.model_dump_json(indent=1)}\n", encoding="utf-8")


class PairAttempt(Attempt):
    """One attempt at a job that compares one candidate as a whole."""

    @contextmanager
    def pair(self, beside: Beside | None = None) -> Iterator[Pair]:
        """Reads the text and makes the candidate, which is kept from eviction meanwhile. `beside` the text is scored,
        too, what no step may look at.

        Raises INVALID_REQUEST if the candidate is the reference itself and no self-check is asked for."""
        with self._watch.phase("text"):
            text = self._read_text(beside)
        with self._watch.phase("modify"):
            sides = self._made(self._shared, text.reference, text.entry, text.origin, text.calibration)
        with sides.modified:
            asked = self._shared.candidate.recipe or self._shared.self_check
            if not asked and sides.candidate.weights == sides.reference.weights:
                raise same_model(sides.reference.alias, sides.candidate.alias)
            yield Pair(text.origin, sides, text.documents, text.corpus)

    def measure(self, pair: Pair, precision: Precision) -> Measured:
        """The candidate's values over the whole text. Raises what engines raise, and what head checks do."""
        sides, corpus, watch, context = pair.sides, pair.corpus, self._watch, self._context
        positions = positions_of(corpus)
        run = self._reference(sides, corpus, precision)
        plain = self._dequantized(sides, corpus, run)
        engine = self._candidate_engine(sides, corpus)
        with watch.phase("candidate"):
            plan = plan_fingerprint(
                [run.scored.key, sides.candidate.weights, str(engine.identity), corpus.fingerprint, precision]
            )
            values, resumed = divergence_of(
                engine,
                corpus.windows,
                run.window,
                divergence_beside(
                    sides.reference.head, sides.candidate.head, precision=precision, pool=self._room.pool
                ),
                context=context,
                phase="candidate",
                scratch=Scratch.open(context.scratch / "candidate", plan),
            )
        term = None
        if plain is not None:
            with watch.phase("kernel_term"):
                term = kernel_term(
                    engine,
                    sides,
                    corpus,
                    positions,
                    plain,
                    precision=precision,
                    pool=self._room.pool,
                    context=context,
                )
        return Measured(
            request=self._shared,
            context=context,
            sides=sides,
            corpus=corpus,
            positions=positions,
            values=values,
            floor=run.floor,
            kernel_term=term,
            conditions=self._conditions(
                run.scored, precision=precision, resumed_windows=resumed, reference_context=run.context
            ),
            allowed=tuple(self._text_warnings()),
        )

    def _dequantized(self, sides: Sides, corpus: Corpus, run: ReferenceRun) -> Dequantized | None:
        """The twin of a packed candidate on the reference's kernels; None for one that has none."""
        if not sides.unpacked:
            return None
        with self._watch.phase("kernel_term"):
            return score_dequantized(
                sides,
                corpus,
                self._room,
                max_model_len=self._shared.window,
                store=self._store,
                key=self._key(sides, str(run.scored.engine.identity), f"{sides.candidate.weights} dequantized", corpus),
                meta={"model": sides.candidate.alias, "what": "dequantized"},
                context=self._context,
            )
