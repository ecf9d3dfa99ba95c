"""What every kind of job does with the two models: text to windows, hidden states from the store or by a pass, and the
check of a head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.contracts.request import JobRequest
from app.contracts.text import TextSource
from app.models.checkpoint import tokenizer_fingerprint
from app.recipes.recipe import Recipe
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.selfcheck import Logprobs, verify_head
from workers.distributions.token_values import Positions
from workers.engine.device import identity
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.measuring.calibration_text import CalibrationLoader, looked_at
from workers.measuring.classify import Classified, classify
from workers.measuring.floor import Floor, noise_floor
from workers.measuring.passes import score_into_store
from workers.measuring.positions import positions_of
from workers.measuring.sides import Side, Sides, folder_bytes
from workers.measuring.stopwatch import Stopwatch
from workers.process.handler import JobContext
from workers.text.documents import TextDocument
from workers.text.sampler import DeferredSampler, ReferenceIdentity
from workers.text.sources import load_documents
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows

# The head is checked on so many tokens of the text.
HEAD_CHECK_TOKENS = 128


@contextmanager
def counted(room: EngineRoom, context: JobContext) -> Iterator[None]:
    """Exports how many engines the block started and how many weights it swapped, however it ends."""
    starts, swaps = room.starts, room.swaps
    try:
        yield
    finally:
        context.observe("engine_starts", room.starts - starts)
        context.observe("engine_weight_swaps", room.swaps - swaps)


@dataclass
class Scored:
    """One model, scored over a corpus."""

    engine: ScoringEngine
    stored: StoredHidden
    key: str
    from_store: bool


class Attempt:
    """One attempt at one job: its request, context, engine room, watch and store."""

    def __init__(self, request: JobRequest, context: JobContext, room: EngineRoom) -> None:
        self._shared = request
        self._context = context
        self._room = room
        self._watch = Stopwatch(context)
        self._started_at = time.time()
        # Ids of scored documents that steps of the recipes look at, where the request allows that.
        self._looked_at: set[str] = set()
        settings = context.settings
        self._store = ReferenceStore(settings.home / "references", settings.reference_budget_bytes, user=context.job_id)

    def _noise_floor(self, sides: Sides, corpus: Corpus, scored: Scored) -> Floor:
        """Of the reference over a corpus, `scored` being its hidden states there: no candidate is looked at."""
        with self._watch.phase("noise_floor"):
            return noise_floor(
                scored.engine,
                sides.reference,
                corpus,
                positions_of(corpus),
                scored.stored,
                store=self._store,
                key=scored.key,
                precision="fast",
                context=self._context,
            )

    def _documents(self, source: TextSource, reference: Side, dtype: str) -> list[TextDocument]:
        """The documents of a text source."""
        context = self._context
        with DeferredSampler(
            lambda: self._room.sampler(reference.info, dtype=dtype, check_cancelled=context.check_cancelled)
        ) as sampler:
            return load_documents(
                source,
                settings=context.settings,
                tokenizer=load_tokenizer(reference.tokenizer),
                sampler=sampler,
                identity=ReferenceIdentity(
                    reference.weights, tokenizer_fingerprint(reference.tokenizer), self._sampler_engine(dtype)
                ),
                seed=self._shared.seed,
                context=reference.info.max_position,
                progress=context.progress,
                check_cancelled=context.check_cancelled,
            )

    def _calibration(
        self, reference: Side, dtype: str, scored: Sequence[TextDocument], *, what: str = "document"
    ) -> CalibrationLoader:
        """The text of steps that look at activations. Raises CALIBRATION_OVERLAP where a step looks at one of `scored`
        (each of which people call a `what`) and the request does not allow it."""
        loader = CalibrationLoader(
            lambda source: self._documents(source, reference, dtype),
            reference.tokenizer,
            check_cancelled=self._context.check_cancelled,
        )
        self._check_overlap(loader, self._shared.candidate.recipe, scored, pointer="/candidate/recipe", what=what)
        return loader

    def _check_overlap(
        self,
        texts: CalibrationLoader,
        recipe: Recipe,
        scored: Sequence[TextDocument],
        *,
        pointer: str,
        what: str = "document",
    ) -> None:
        """Raises CALIBRATION_OVERLAP where a step of a recipe looks at one of `scored` (each of which people call a
        `what`); where the request allows that, the report is to warn of it (`_allowed`)."""
        if not self._shared.allow_overlap:
            texts.refuse_overlap(recipe, scored, pointer=pointer, what=what)
            return
        for ids in texts.overlap(recipe, scored).values():
            self._looked_at.update(ids)

    def _allowed(self) -> list[str]:
        """A warning where steps of the recipes look at scored documents, as the request allows."""
        return looked_at(len(self._looked_at), "the recipe's steps")

    def _windows(self, documents: list[TextDocument], reference: Side) -> Corpus:
        """Documents as windows of the reference's tokens."""
        return make_windows(
            documents,
            load_tokenizer(reference.tokenizer),
            self._shared.window,
            progress=self._context.progress,
            check_cancelled=self._context.check_cancelled,
        )

    def _classified(
        self, documents: list[TextDocument], corpus: Corpus, positions: Positions, reference: Side
    ) -> Classified:
        """The kinds of the predicted tokens at the positions of a corpus, made of these documents."""
        return classify(
            documents,
            corpus,
            positions,
            load_tokenizer(reference.tokenizer),
            vocabulary=reference.info.vocabulary,
            check_cancelled=self._context.check_cancelled,
        )

    def _sampler_engine(self, dtype: str) -> str:
        pool = self._room.pool
        return str(identity(pool.device, dtype, pool.settings, compiled=pool.settings.engine_compile))

    def _engine(self, side: Side, dtype: str, *, load: bool = True) -> ScoringEngine:
        """An engine of this side's own; not loaded, it takes its weights when it first scores. A model whose context is
        shorter than the windows is given no more than it can read."""
        window = min(self._shared.window, side.info.max_position or self._shared.window)
        return self._room.engine(
            side.info, window, dtype=dtype, load=load, check_cancelled=self._context.check_cancelled
        )

    def _key(self, sides: Sides, engine_identity: str, weights: str, corpus: Corpus) -> str:
        """What hidden states of these weights depend on."""
        return self._store.key(
            weights=weights,
            tokenizer=sides.tokenizer_fingerprint,
            text=corpus.fingerprint,
            window=self._shared.window,
            engine=engine_identity,
        )

    def _score(self, sides: Sides, side: Side, corpus: Corpus, what: str) -> Scored:
        """A side's hidden states, from the store or by a pass; `what` is the phase: reference or candidate."""
        context = self._context
        # A model that was scored before is not loaded again.
        engine = self._engine(side, sides.dtype, load=False)
        key = self._key(sides, str(engine.identity), side.weights, corpus)
        stored = self._store.open(key)
        context.observe("store_hits" if stored else "store_misses", 1, store="reference")
        if stored is not None:
            return Scored(engine, stored, key, from_store=True)
        with self._watch.phase("engine"):
            context.progress("engine", 0, 0)
            engine.load(side.info, check_cancelled=context.check_cancelled)
        with self._watch.phase(what):
            stored = score_into_store(
                engine,
                corpus.windows,
                store=self._store,
                key=key,
                meta={"model": side.alias, "what": what},
                context=context,
                phase=what,
            )
        context.observe("store_bytes", folder_bytes(self._store.root), store="reference")
        return Scored(engine, stored, key, from_store=False)

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

        engine = str(identity(pool.device, dtype, pool.settings, compiled=False))
        kept = verify_head(
            side.head,
            checked,
            tokens.tolist(),
            root=root,
            engine=engine,
            engine_logp=engine_logp,
            roundings=2 * side.info.layers,
        )
        context.observe("store_hits" if kept else "store_misses", 1, store="head")
