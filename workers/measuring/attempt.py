"""What every kind of job does with the two models: text to windows, hidden states from the store or by a pass, and the
check of a head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.contracts.request import JobRequest
from app.contracts.text import TextSource
from app.models.checkpoint import CheckpointInfo, tokenizer_fingerprint
from app.models.registry import ModelEntry, load_registry, settings_of
from app.models.steps.others import other_of
from app.recipes.recipe import Recipe
from workers.distributions.divergence import Precision
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.selfcheck import Logprobs, verify_head
from workers.distributions.token_values import Positions
from workers.engine.device import identity
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.measuring.assemble import Conditions
from workers.measuring.calibration_text import CalibrationLoader, looked_at, reads_text
from workers.measuring.classify import Classified, classify
from workers.measuring.floor import Floor, noise_floor
from workers.measuring.long_context import Cut, cut, reference_limit
from workers.measuring.passes import score_into_store
from workers.measuring.positions import positions_of
from workers.measuring.recipes import Bench
from workers.measuring.sides import Side, Sides, folder_bytes, modify, resolve
from workers.process.handler import JobContext
from workers.text.documents import TextDocument
from workers.text.sampler import DeferredSampler, ReferenceIdentity
from workers.text.sources import load_documents
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows

# The head is checked on so many tokens of the text.
HEAD_CHECK_TOKENS = 128


class Stopwatch:
    """`with watch.phase(name):` adds the block's seconds to that phase, and exports them."""

    def __init__(self, context: JobContext) -> None:
        self.seconds: dict[str, float] = {}
        self._context = context

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block. A block that raises is not exported: it shows nothing of how long the phase takes."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
        self._context.observe("phase_seconds", spent, phase=name)


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


@dataclass(frozen=True)
class ReferenceRun:
    """The reference over a text. `shorter`, with windows longer than the reference's context, is what it reads of them,
    and `scored` is over that."""

    scored: Scored
    floor: Floor
    shorter: Cut | None = None

    def window(self, index: int) -> torch.Tensor:
        """hidden_TD of one window of the text."""
        stored = self.scored.stored
        return stored.window(index) if self.shorter is None else self.shorter.states(stored.window)(index)

    @property
    def context(self) -> int | None:
        """The reference's context where it is shorter than the windows."""
        return None if self.shorter is None else self.shorter.corpus.window


@dataclass(frozen=True)
class Text:
    """The text of a request as documents and windows, and the models that read it, the candidate before its recipe."""

    reference: Side
    entry: ModelEntry
    origin: CheckpointInfo
    documents: list[TextDocument]
    corpus: Corpus
    calibration: CalibrationLoader


# What is scored beside the text, given the reference and its dtype, and what people call one of it.
# Sources whose domains a person names; other ones have the names of the shipped text, or near them.
_LABELLED: Final = frozenset({"inline", "file", "hub"})
Beside = tuple[Callable[[Side, str], Sequence[TextDocument]], str]


class Attempt:
    """One attempt at one job: its request, context, engine room, watch and store."""

    def __init__(self, request: JobRequest, context: JobContext, room: EngineRoom) -> None:
        self._shared = request
        self._context = context
        self._room = room
        room.run_as(settings_of(context.settings, request.reference.model))
        self._watch = Stopwatch(context)
        self._started_at = time.time()
        # Ids of what is scored and steps of the recipes look at, as the request allows, by what people call one.
        self._looked_at: dict[str, set[str]] = {}
        # Domains that are scored and of which a step of the recipes looks at no document, in order.
        self._unread: dict[str, None] = {}
        settings = context.settings
        self._store = ReferenceStore(settings.home / "references", settings.reference_budget_bytes, user=context.job_id)

    def _read_text(self, beside: Beside | None = None) -> Text:
        """The text, which no step of the candidate's recipe may look at, and neither at what is scored `beside` it."""
        request, context = self._shared, self._context
        reference, entry, origin = resolve(request, context)
        context.progress("text", 0, 0)
        documents = self._documents(request.text, reference, entry.dtype)
        corpus = self._windows(documents, reference)
        texts = self._calibration(reference, entry.dtype, documents)
        recipe = request.candidate.recipe
        if beside is not None and reads_text(recipe):
            scored, what = beside
            self._check_overlap(texts, recipe, scored(reference, entry.dtype), pointer="/candidate/recipe", what=what)
        return Text(reference, entry, origin, documents, corpus, texts)

    def _made(
        self,
        request: JobRequest,
        reference: Side,
        entry: ModelEntry,
        origin: CheckpointInfo,
        texts: CalibrationLoader,
    ) -> Sides:
        """The candidate of `request` after its recipe. Raises what `modify` raises."""
        pool = self._room.pool
        return modify(
            request,
            reference,
            entry,
            origin,
            self._context,
            device=pool.steps_device,
            calibration=texts,
            make_room=pool.make_room_for_steps,
        )

    def _reference(self, sides: Sides, corpus: Corpus, precision: Precision) -> ReferenceRun:
        """The reference over a text: scored or found in the store, its head checked, its noise floor measured."""
        reference = sides.reference
        limit = reference_limit(self._shared.window, reference.info.max_position)
        shorter = None if limit is None else cut(corpus, limit)
        read = corpus if shorter is None else shorter.corpus
        scored = self._score(sides, reference, read, "reference")
        self._check_head(reference, sides.dtype, read, scored)
        return ReferenceRun(scored, self._noise_floor(sides, read, scored, precision), shorter)

    def _conditions(self, scored: Scored, **more: Any) -> Conditions:
        """How this attempt measures: in the engine that scored the reference."""
        return Conditions(
            scored.engine.identity,
            self._started_at,
            self._watch.seconds,
            reference_from_store=scored.from_store,
            **more,
        )

    def _candidate_engine(self, sides: Sides, corpus: Corpus) -> ScoringEngine:
        """The candidate, loaded, its head checked."""
        with self._watch.phase("engine"):
            self._context.progress("engine", 0, 0)
            engine = self._engine(sides.candidate, sides.dtype)
        self._check_head(sides.candidate, sides.dtype, corpus, engine)
        return engine

    def _bench(
        self,
        reference: Side,
        origin: CheckpointInfo,
        dtype: str,
        texts: CalibrationLoader,
        context: JobContext | None = None,
    ) -> Bench:
        """What makes recipes of `origin` and measures them against the reference."""
        settings = self._context.settings
        registry = load_registry(settings.models_file)
        return Bench(
            reference=reference,
            origin=origin,
            dtype=dtype,
            window=self._shared.window,
            texts=texts,
            others=lambda step: other_of(step, registry, settings, pointer="/candidate/recipe"),
            room=self._room,
            context=context or self._context,
        )

    def _noise_floor(self, sides: Sides, corpus: Corpus, scored: Scored, precision: Precision = "fast") -> Floor:
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
                precision=precision,
                pool=self._room.pool,
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

    def _calibration(self, reference: Side, dtype: str, scored: Sequence[TextDocument]) -> CalibrationLoader:
        """The text of steps that look at activations. Raises CALIBRATION_OVERLAP if a step looks at one of `scored` and
        the request does not allow it."""
        loader = CalibrationLoader(
            lambda source: self._documents(source, reference, dtype),
            reference.tokenizer,
            check_cancelled=self._context.check_cancelled,
        )
        self._check_overlap(loader, self._shared.candidate.recipe, scored, pointer="/candidate/recipe")
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
        """Raises CALIBRATION_OVERLAP if a step of a recipe looks at one of `scored` (each of which people call a
        `what`). If the request allows that, the report is to warn of it (`_text_warnings`), and of domains that steps
        look at no document of."""
        if what == "document" and self._shared.text.source in _LABELLED:
            self._unread |= dict.fromkeys(texts.unread(recipe, scored))
        if not self._shared.allow_overlap:
            texts.refuse_overlap(recipe, scored, pointer=pointer, what=what)
            return
        for ids in texts.overlap(recipe, scored).values():
            self._looked_at.setdefault(what, set()).update(ids)

    def _text_warnings(self) -> list[Notice]:
        """Warnings of what is scored and steps of the recipes look at, as the request allows, and of scored domains
        that they look at nothing of."""
        both = [
            warning
            for what, ids in self._looked_at.items()
            for warning in looked_at(len(ids), "the recipe's steps", f"scored {what}")
        ]
        if self._unread:
            both.append(Warned.UNREAD_DOMAINS(domains=tuple(self._unread)))
        return both

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

    def _check_head(self, side: Side, dtype: str, corpus: Corpus, states: Scored | ScoringEngine) -> None:
        """Our head against the engine's, once for a head, on the beginning of a corpus: on the side's stored `states`
        of it, or on those that its engine gives."""
        context, pool = self._context, self._room.pool
        tokens = corpus.windows[0].tokens[:HEAD_CHECK_TOKENS]

        def engine_logp() -> Logprobs:
            return self._room.prompt_logprobs(
                side.info, tokens.tolist(), dtype=dtype, check_cancelled=context.check_cancelled
            )

        def checked() -> torch.Tensor:
            hidden = states.stored.window(0) if isinstance(states, Scored) else next(states.score([tokens]))[1]
            return hidden[: len(tokens)]

        with self._watch.phase("head_check"):
            context.progress("head_check", 0, 0)
            kept = verify_head(
                side.head,
                checked,
                tokens.tolist(),
                root=context.settings.home / "heads",
                engine=str(identity(pool.device, dtype, pool.settings, compiled=False)),
                engine_logp=engine_logp,
                roundings=2 * side.info.layers,
            )
        context.observe("store_hits" if kept else "store_misses", 1, store="head")
