"""The `compare` job: how far a modified model's next-token distributions are from the original's over one text.

The order keeps one model in memory at a time: text, surgery, reference (from the store where it was scored before),
head check, noise floor, a packed candidate's dequantized twin, candidate, report. The candidate's values go to disk as
they come, so that the attempt after a lost one goes on where it broke off.
"""

from __future__ import annotations

from app.contracts.report import CompareReport
from app.contracts.requests.compare import CompareRequest
from workers.diagnosis.assemble import Measured, build_report
from workers.diagnosis.attempt import Attempt, counted
from workers.diagnosis.context import JobContext
from workers.diagnosis.export import export_metrics
from workers.diagnosis.floor import kernel_term, noise_floor, score_dequantized
from workers.diagnosis.passes import divergence_of
from workers.diagnosis.plan import Scratch, plan_fingerprint
from workers.diagnosis.positions import positions_of
from workers.diagnosis.sides import modify, resolve
from workers.diagnosis.token_classes.classify import classify
from workers.diagnosis.token_classes.slices import token_classes
from workers.distributions.divergence import Divergence
from workers.engine.room import EngineRoom
from workers.text.tokenization import load_tokenizer

# The artifact of per-token values.
TOKENS_FILE = "tokens.parquet"


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """Runs the job and returns its report; the per-token values go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Compare(request, context, room).run()


class _Compare(Attempt):
    """One attempt at one compare job."""

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
        with watch.phase("modify"):
            sides = modify(request, reference, entry, origin, context, calibration=texts)
        with sides.modified:
            positions = positions_of(corpus)
            scored = self._score(sides, sides.reference, corpus, "reference")
            with watch.phase("head_check"):
                self._check_head(sides.reference, sides.dtype, corpus, lambda _: scored.stored.window(0))
            with watch.phase("noise_floor"):
                floor = noise_floor(
                    scored.engine,
                    sides.reference,
                    corpus,
                    positions,
                    scored.stored,
                    store=self._store,
                    key=scored.key,
                    precision=request.precision,
                    context=context,
                )
            plain = None
            if sides.packed:
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
                values, resumed = divergence_of(
                    engine,
                    corpus.windows,
                    scored.stored.window,
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
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                classified = classify(
                    documents,
                    corpus,
                    positions,
                    load_tokenizer(sides.reference.tokenizer),
                    vocabulary=sides.reference.head.vocabulary,
                    check_cancelled=context.check_cancelled,
                )
                measured = Measured(
                    request=request,
                    sides=sides,
                    corpus=corpus,
                    positions=positions,
                    values=values,
                    floor=floor,
                    token_classes=token_classes(
                        values, positions, classified, seed=request.seed, check_cancelled=context.check_cancelled
                    ),
                    kernel_term=term,
                    engine=engine.identity,
                    reference_from_store=scored.from_store,
                    resumed_windows=resumed,
                    started_at=self._started_at,
                    seconds=watch.seconds,
                )
                report = build_report(measured, context)
            with watch.phase("report"):
                values.to_parquet(
                    context.output / TOKENS_FILE,
                    positions,
                    [document.id for document in corpus.documents],
                    [document.domain for document in corpus.documents],
                )
                export_metrics(report, values, sides, context)
                context.progress("report", 1, 1)
        return report
