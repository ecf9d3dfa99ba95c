"""The `compare` job: how far a modified model's next-token distributions are from the original's over one text.

The order keeps one model in memory at a time: text, surgery, reference (from the store where it was scored before),
head check, noise floor, a packed candidate's dequantized twin, candidate, report. The candidate's values go to disk as
they come, so that the attempt after a lost one goes on where it broke off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from app.contracts.report import GeneratedToolCalls, Report
from app.contracts.request import JobRequest
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from workers.diagnosis.compare.report import Measured, build_report
from workers.diagnosis.compare.tool_calls.prompts import with_tools
from workers.diagnosis.compare.tool_calls.run import generated_tool_calls
from workers.distributions.divergence import Divergence
from workers.distributions.token_values import TokenValues
from workers.engine.room import EngineRoom
from workers.measuring.assemble import repeatable
from workers.measuring.attempt import Attempt, counted
from workers.measuring.calibration_text import CalibrationLoader, reads_text
from workers.measuring.classify import Classified
from workers.measuring.export import export_metrics
from workers.measuring.floor import kernel_term, noise_floor, score_dequantized
from workers.measuring.long_context import cut, reference_limit
from workers.measuring.passes import divergence_of
from workers.measuring.plan import Scratch, plan_fingerprint
from workers.measuring.positions import positions_of
from workers.measuring.sides import Side, Sides, modify, resolve
from workers.measuring.token_classes import token_classes
from workers.process.handler import JobContext
from workers.text.token_classes.catalogue import CLASS_COLUMN

# The artifact of per-token values.
TOKENS_FILE = "tokens.parquet"
# The artifact that tells what the candidate's recipe did, tensor by tensor and step by step.
MANIFEST_FILE = "manifest.json"
Other = TypeVar("Other", bound=Report)


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """Runs the job and returns its report; the per-token values and the recipe's manifest go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Compare(request, context, room).run()


@dataclass(frozen=True)
class Compared:
    """The comparison that a job of another kind begins with."""

    request: JobRequest
    report: CompareReport
    values: TokenValues

    def reported(self, as_: type[Other], **own: object) -> Other:
        """A report of another kind: its `own` fields, all others as the comparison has them."""
        shared = (CompareReport.model_fields.keys() & as_.model_fields.keys()) - {"schema_", "kind"}
        measured = {name: getattr(self.report, name) for name in shared}
        return as_(**measured | {"request": repeatable(self.request)} | own)


def compared(request: JobRequest, context: JobContext, room: EngineRoom) -> Compared:
    """Compares what a request of another kind names. Keeps no text of it. Raises what `compare` raises."""
    shared = (CompareRequest.model_fields.keys() & type(request).model_fields.keys()) - {"kind", "store_text"}
    fields: dict[str, Any] = {name: getattr(request, name) for name in shared}
    with counted(room, context):
        attempt = _Compare(CompareRequest(kind="compare", store_text=False, **fields), context, room)
        return Compared(request, attempt.run(), attempt.values)


class _Compare(Attempt):
    """One attempt at one compare job; `values` are there once it has run."""

    values: TokenValues

    def __init__(self, request: CompareRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> CompareReport:
        request, context, watch = self._request, self._context, self._watch
        with watch.phase("text"):
            reference, entry, origin = resolve(request, context)
            context.progress("text", 0, 0)
            documents = self._documents(request.text, reference, entry.dtype)
            corpus = self._windows(documents, reference)
            texts = self._calibration(reference, entry.dtype, documents)
            self._check_conversations(texts, reference, entry.dtype)
        with watch.phase("modify"):
            sides = modify(request, reference, entry, origin, context, calibration=texts)
        with sides.modified:
            positions = positions_of(corpus)
            limit = reference_limit(request.window, sides.reference.info.max_position)
            shorter = None if limit is None else cut(corpus, limit)
            read = corpus if shorter is None else shorter.corpus
            scored = self._score(sides, sides.reference, read, "reference")
            with watch.phase("head_check"):
                self._check_head(sides.reference, sides.dtype, read, lambda _: scored.stored.window(0))
            with watch.phase("noise_floor"):
                floor = noise_floor(
                    scored.engine,
                    sides.reference,
                    read,
                    positions if shorter is None else positions_of(read),
                    scored.stored,
                    store=self._store,
                    key=scored.key,
                    precision=request.precision,
                    context=context,
                )
            plain = None
            if sides.unpacked:
                with watch.phase("kernel_term"):
                    plain = score_dequantized(
                        sides,
                        corpus,
                        self._room,
                        max_model_len=request.window,
                        store=self._store,
                        key=self._key(
                            sides, str(scored.engine.identity), f"{sides.candidate.weights} dequantized", corpus
                        ),
                        meta={"model": sides.candidate.alias, "what": "dequantized"},
                        context=context,
                    )
            with watch.phase("engine"):
                context.progress("engine", 0, 0)
                engine = self._engine(sides.candidate, sides.dtype)
            with watch.phase("head_check"):
                context.progress("head_check", 0, 0)
                self._check_head(sides.candidate, sides.dtype, corpus, lambda tokens: next(engine.score([tokens]))[1])
            with watch.phase("candidate"):
                divergence = Divergence(sides.reference.head, sides.candidate.head, precision=request.precision)
                plan = plan_fingerprint(
                    [scored.key, sides.candidate.weights, str(engine.identity), corpus.fingerprint, request.precision]
                )
                scratch = Scratch.open(context.scratch / "candidate", plan)
                self.values, resumed = divergence_of(
                    engine,
                    corpus.windows,
                    scored.stored.window if shorter is None else shorter.states(scored.stored.window),
                    divergence,
                    context=context,
                    phase="candidate",
                    scratch=scratch,
                )
            term = None
            if plain is not None:
                with watch.phase("kernel_term"):
                    term = kernel_term(
                        engine, sides, corpus, positions, plain, precision=request.precision, context=context
                    )
            tool_calls = self._tool_calls(sides)
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                classes = self._classified(documents, corpus, positions, sides.reference)
                measured = Measured(
                    request=request,
                    sides=sides,
                    corpus=corpus,
                    positions=positions,
                    values=self.values,
                    floor=floor,
                    token_classes=token_classes(
                        self.values, positions, classes, seed=request.seed, check_cancelled=context.check_cancelled
                    ),
                    kernel_term=term,
                    tool_calls=tool_calls,
                    reference_context=limit,
                    engine=engine.identity,
                    reference_from_store=scored.from_store,
                    resumed_windows=resumed,
                    allowed=self._allowed(),
                    started_at=self._started_at,
                    seconds=watch.seconds,
                )
                report = build_report(measured, context)
            with watch.phase("report"):
                self._artifacts(measured, classes)
                export_metrics(report, self.values, context)
                context.progress("report", 1, 1)
        return report

    def _artifacts(self, measured: Measured, classes: Classified) -> None:
        """The values of every token with their classes, and what the recipe did."""
        documents, manifest = measured.corpus.documents, measured.sides.modified.manifest
        measured.values.to_parquet(
            self._context.output / TOKENS_FILE,
            measured.positions,
            [document.id for document in documents],
            [document.domain for document in documents],
            flags={f"{CLASS_COLUMN}{name}": mask for name, mask in classes.masks.items()},
        )
        if manifest.recipe:
            told = manifest.model_dump_json(indent=1)
            (self._context.output / MANIFEST_FILE).write_text(f"{told}\n", encoding="utf-8")

    def _tool_calls(self, sides: Sides) -> GeneratedToolCalls | None:
        """What both models write when they may call tools, where that was asked for."""
        asked = self._request.generate_tool_calls
        if asked is None:
            return None
        with self._watch.phase("generate"):
            return generated_tool_calls(
                asked,
                self._documents(asked.text, sides.reference, sides.dtype),
                sides,
                self._room,
                store_text=self._request.keeps_text,
                context=self._context,
            )

    def _check_conversations(self, texts: CalibrationLoader, reference: Side, dtype: str) -> None:
        """Raises CALIBRATION_OVERLAP where a step looks at a conversation in which tool calls are asked for, and the
        request does not allow it; else such conversations count among the scored documents that steps look at."""
        asked, recipe = self._request.generate_tool_calls, self._request.candidate.recipe
        if asked is None or not reads_text(recipe):
            return
        conversations = with_tools(self._documents(asked.text, reference, dtype), asked.prompts)
        if not self._request.allow_overlap:
            texts.refuse_overlap(recipe, conversations, pointer="/candidate/recipe", what="conversation")
        # A document of the text may have the id of a conversation.
        for ids in texts.overlap(recipe, conversations).values():
            self._looked_at.update(f"conversation {one}" for one in ids)
