"""The `compare` job: how far a modified model's next-token distributions are from the original's over one text.

The order keeps one model in memory at a time: text, surgery, reference (from the store where it was scored before),
head check, noise floor, a packed candidate's dequantized twin, candidate, report. The candidate's values go to disk as
they come, so that the attempt after a lost one goes on where it broke off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.contracts.job import CompareRequest
from app.contracts.report import CompareReport
from app.models.checkpoint import tokenizer_fingerprint
from workers.diagnosis.assemble import Measured, build_report
from workers.diagnosis.context import JobContext
from workers.diagnosis.export import export_metrics
from workers.diagnosis.floor import kernel_term, noise_floor, score_dequantized
from workers.diagnosis.passes import divergence_of, score_into_store
from workers.diagnosis.plan import Scratch, plan_fingerprint
from workers.diagnosis.positions import positions_of
from workers.diagnosis.sides import Side, Sides, folder_bytes, modify, resolve
from workers.diagnosis.stopwatch import Stopwatch
from workers.distributions.divergence import Divergence
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.selfcheck import Logprobs, verify_head
from workers.engine.device import identity
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.text.sampler import DeferredSampler, ReferenceIdentity
from workers.text.sources import load_documents
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows

# The artifact of per-token values.
TOKENS_FILE = "tokens.parquet"
# The head is checked on so many tokens of the text.
HEAD_CHECK_TOKENS = 128


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """Runs the job and returns its report; the per-token values go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with _counted(room, context):
        return _Compare(request, context, room).run()


@contextmanager
def _counted(room: EngineRoom, context: JobContext) -> Iterator[None]:
    """Exports how many engines the block started and how many weights it swapped, however it ends."""
    starts, swaps = room.starts, room.swaps
    try:
        yield
    finally:
        context.observe("engine_starts", room.starts - starts)
        context.observe("engine_weight_swaps", room.swaps - swaps)


@dataclass
class _Reference:
    """The reference, scored."""

    engine: ScoringEngine
    stored: StoredHidden
    key: str
    from_store: bool


class _Compare:
    """One attempt at one compare job."""

    def __init__(self, request: CompareRequest, context: JobContext, room: EngineRoom) -> None:
        self._request = request
        self._context = context
        self._room = room
        self._watch = Stopwatch(context)
        self._started_at = time.time()
        settings = context.settings
        self._store = ReferenceStore(settings.home / "references", settings.reference_budget_bytes)

    def run(self) -> CompareReport:
        request, context, watch = self._request, self._context, self._watch
        with watch.phase("text"):
            reference, entry, origin = resolve(request, context)
            corpus = self._corpus(reference, entry.dtype)
        with watch.phase("modify"):
            sides = modify(request, reference, entry, origin, context)
        with sides.modified:
            positions = positions_of(corpus)
            scored = self._score_reference(sides, corpus)
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
                measured = Measured(
                    request=request,
                    sides=sides,
                    corpus=corpus,
                    positions=positions,
                    values=values,
                    floor=floor,
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

    def _corpus(self, reference: Side, dtype: str) -> Corpus:
        """The text as windows of the reference's tokens."""
        request, context = self._request, self._context
        tokenizer = load_tokenizer(reference.tokenizer)
        context.progress("text", 0, 0)
        with DeferredSampler(
            lambda: self._room.sampler(reference.info, dtype=dtype, check_cancelled=context.check_cancelled)
        ) as sampler:
            documents = load_documents(
                request.text,
                settings=context.settings,
                tokenizer=tokenizer,
                sampler=sampler,
                identity=ReferenceIdentity(
                    reference.weights, tokenizer_fingerprint(reference.tokenizer), self._sampler_engine(dtype)
                ),
                seed=request.seed,
                context=reference.info.max_position,
                progress=context.progress,
                check_cancelled=context.check_cancelled,
            )
        return make_windows(
            documents,
            tokenizer,
            request.window,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )

    def _sampler_engine(self, dtype: str) -> str:
        pool = self._room.pool
        return str(identity(pool.device, dtype, compiled=pool.settings.engine_compile))

    def _engine(self, side: Side, dtype: str, *, load: bool = True) -> ScoringEngine:
        """An engine of this side's own; not loaded, it takes its weights when it first scores."""
        return self._room.engine(
            side.info, self._request.window, dtype=dtype, load=load, check_cancelled=self._context.check_cancelled
        )

    def _key(self, sides: Sides, engine_identity: str, weights: str, corpus: Corpus) -> str:
        """What hidden states of these weights depend on."""
        return self._store.key(
            weights=weights,
            tokenizer=sides.tokenizer_fingerprint,
            text=corpus.fingerprint,
            window=self._request.window,
            engine=engine_identity,
        )

    def _score_reference(self, sides: Sides, corpus: Corpus) -> _Reference:
        """The reference's hidden states, from the store or by a pass."""
        context = self._context
        # A reference that was scored before is not loaded again.
        engine = self._engine(sides.reference, sides.dtype, load=False)
        key = self._key(sides, str(engine.identity), sides.reference.weights, corpus)
        stored = self._store.open(key)
        context.observe("store_hits" if stored else "store_misses", 1, store="reference")
        if stored is not None:
            return _Reference(engine, stored, key, from_store=True)
        with self._watch.phase("engine"):
            context.progress("engine", 0, 0)
            engine.load(sides.reference.info, check_cancelled=context.check_cancelled)
        with self._watch.phase("reference"):
            stored = score_into_store(
                engine,
                corpus.windows,
                store=self._store,
                key=key,
                meta={"model": sides.reference.alias, "what": "reference"},
                context=context,
                phase="reference",
            )
        context.observe("store_bytes", folder_bytes(self._store.root), store="reference")
        return _Reference(engine, stored, key, from_store=False)

    def _check_head(
        self, side: Side, dtype: str, corpus: Corpus, hidden: Callable[[np.ndarray[Any, Any]], torch.Tensor]
    ) -> None:
        """Our head against the engine's, once for a head; `hidden` gives the states of a text that begins with it."""
        context = self._context
        tokens = corpus.windows[0].tokens[:HEAD_CHECK_TOKENS]
        root = context.settings.home / "heads"
        pool = self._room.pool

        def engine_logp() -> Logprobs:
            return self._room.prompt_logprobs(
                side.info, tokens.tolist(), dtype=dtype, check_cancelled=context.check_cancelled
            )

        def checked() -> torch.Tensor:
            return hidden(tokens)[: len(tokens)]

        engine = str(identity(pool.device, dtype, compiled=False))
        kept = verify_head(side.head, checked, tokens.tolist(), root=root, engine=engine, engine_logp=engine_logp)
        context.observe("store_hits" if kept else "store_misses", 1, store="head")
