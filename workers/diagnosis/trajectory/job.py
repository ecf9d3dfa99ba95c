"""The `trajectory` job: what a modification does to text that the model writes itself.

Order: prompts, candidates, every model's texts by every decoder, then both models' hidden states over all of these
texts (each distinct text once), divergences from them, statistics. Texts are kept as they are done, hidden states
window by window, divergences batch by batch: the attempt after a lost one goes on where it broke off.
"""

from __future__ import annotations

from contextlib import ExitStack

from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import TrajectoryRequest, pointer_of, pointing
from workers.diagnosis.trajectory.export import export
from workers.diagnosis.trajectory.generating import TextWriter, Written
from workers.diagnosis.trajectory.prompts import Prompt, check_context, make_prompts
from workers.diagnosis.trajectory.report import Found, Measured, build_report
from workers.diagnosis.trajectory.scoring import TextPool
from workers.diagnosis.trajectory.shapes import distances_after
from workers.distributions.divergence import Precision
from workers.engine.room import EngineRoom
from workers.measuring.attempt import Attempt, Scored, counted
from workers.measuring.beside import divergence_beside
from workers.measuring.passes import StoredStates, divergence_of
from workers.measuring.plan import Scratch, plan_fingerprint
from workers.measuring.sides import Sides, resolve
from workers.process.handler import JobContext
from workers.text.tokenization import bos_of, load_tokenizer
from workers.text.windows import Corpus

PRECISION: Precision = "fast"


def trajectory(request: TrajectoryRequest, context: JobContext, room: EngineRoom) -> TrajectoryReport:
    """Runs the job and returns its report; texts and per-token values go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Trajectory(request, context, room).run()


class _Trajectory(Attempt):
    """One attempt at one trajectory job."""

    def __init__(self, request: TrajectoryRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> TrajectoryReport:
        context, watch = self._context, self._watch
        with ExitStack() as stack:
            prompts, every = self._prepare(stack)
            with watch.phase("generate"):
                written = self._write(prompts, every)
            pool, reference_numbers = TextPool(prompts), []
            first = self._request.decoders[0].name
            # The first decoder's texts of the reference stand first: floor, verdict and shaped distances are theirs.
            for number, text in enumerate(written[0].texts[first]):
                reference_numbers.append(pool.add(number, text.tokens))
            for texts in (one for model in written for one in model.texts.values()):
                for number, text in enumerate(texts):
                    pool.add(number, text.tokens)
            bos = bos_of(load_tokenizer(every[0].reference.tokenizer)) is not None
            everything = pool.corpus(range(len(pool.texts)), self._shared.window, bos=bos)
            base = pool.corpus(sorted(set(reference_numbers)), self._shared.window, bos=bos)
            scored = self._score(every[0], every[0].reference, everything, "reference")
            self._check_head(every[0].reference, every[0].dtype, everything, scored)
            floor = self._noise_floor(every[0], base, scored, PRECISION)
            measured = [
                self._measure(index, sides, pool, [written[0], written[index + 1]], scored, base, bos=bos)
                for index, sides in enumerate(every)
            ]
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                found = Found(
                    request=self._request,
                    prompts=prompts,
                    sides=every,
                    written=written,
                    pool=pool,
                    base=base,
                    measured=measured,
                    floor=floor,
                    conditions=self._conditions(scored, precision=PRECISION),
                    allowed=tuple(self._text_warnings()),
                )
                report = build_report(found, context)
            with watch.phase("report"):
                export(report, found, context)
                context.progress("report", 1, 1)
        return report

    def _prepare(self, stack: ExitStack) -> tuple[list[Prompt], list[Sides]]:
        """Prompts and modified candidates, kept from eviction until `stack` is left."""
        request, context = self._request, self._context
        with self._watch.phase("text"):
            resolved = []
            for index, model in enumerate(request.models()):
                with pointing(index):
                    one = request.model_copy(update={"candidate": model})
                    resolved.append((one, *resolve(one, context)))
            _, reference, entry, _ = resolved[0]
            context.progress("text", 0, 0)
            documents = self._documents(request.text, reference, entry.dtype)
            prompts = make_prompts(
                documents,
                load_tokenizer(reference.tokenizer),
                count=request.prompts,
                length=request.prompt_tokens,
                chat=request.chat,
                check_cancelled=context.check_cancelled,
            )
            check_context(prompts, request.tokens, reference.info.max_position, model=reference.alias)
            texts = self._calibration(reference, entry.dtype, documents)
            for index, model in enumerate(request.models()[1:], 1):
                self._check_overlap(texts, model.recipe, documents, pointer=f"{pointer_of(index)}/recipe")
        every = []
        with self._watch.phase("modify"):
            for index, (one, own, own_entry, origin) in enumerate(resolved):
                with pointing(index):
                    sides = self._made(one, own, own_entry, origin, texts)
                stack.enter_context(sides.modified)
                check_context(prompts, request.tokens, sides.candidate.info.max_position, model=sides.candidate.alias)
                every.append(sides)
        length = max(len(prompt.tokens) for prompt in prompts) + request.tokens
        self._shared = request.model_copy(update={"window": length})
        return prompts, every

    def _write(self, prompts: list[Prompt], every: list[Sides]) -> list[Written]:
        """The reference's texts, then each candidate's."""
        request = self._request
        scribe = TextWriter(
            prompts,
            request.decoders,
            models=len(every) + 1,
            tokens=request.tokens,
            length=self._shared.window,
            seed=request.seed,
            dtype=every[0].dtype,
            room=self._room,
            context=self._context,
        )
        written = [scribe.write(every[0].reference, pointer="/reference")]
        written += [scribe.write(sides.candidate, pointer=pointer_of(index)) for index, sides in enumerate(every)]
        return written

    def _measure(
        self,
        index: int,
        sides: Sides,
        pool: TextPool,
        written: list[Written],
        scored: Scored,
        base: Corpus,
        *,
        bos: bool,
    ) -> Measured:
        """A candidate against the reference over both models' texts."""
        context, watch = self._context, self._watch
        numbers = sorted(
            {
                pool.add(number, text.tokens)
                for model in written
                for texts in model.texts.values()
                for number, text in enumerate(texts)
            }
        )
        corpus = pool.corpus(numbers, self._shared.window, bos=bos)
        own = self._score(sides, sides.candidate, corpus, "candidate")
        with pointing(index):
            self._check_head(sides.candidate, sides.dtype, corpus, own)
        with watch.phase("candidate"):
            plan = plan_fingerprint([scored.key, own.key, corpus.fingerprint, PRECISION])
            values, _ = divergence_of(
                StoredStates(own.stored),
                corpus.windows,
                lambda place: scored.stored.window(numbers[place]),
                divergence_beside(
                    sides.reference.head, sides.candidate.head, precision=PRECISION, pool=self._room.pool
                ),
                context=context,
                phase="divergence",
                scratch=Scratch.open(context.scratch / "values" / plan[:32], plan),
                counted=False,
            )
        places = {number: place for place, number in enumerate(numbers)}
        with watch.phase("shapes"):
            decided = [plan, *(shaping.model_dump_json() for shaping in self._request.shapings)]
            shapes = distances_after(
                self._request.shapings,
                base.windows,
                lambda number: (scored.stored.window(number), own.stored.window(places[number])),
                (sides.reference.head, sides.candidate.head),
                folder=context.scratch / "shapes" / plan_fingerprint(decided)[:32],
                context=context,
            )
        return Measured(numbers=numbers, corpus=corpus, values=values, shapes=shapes)
