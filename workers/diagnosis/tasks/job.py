"""The `tasks` job: the distributions as a compare job measures them, then answers in pairs.

Order: the items are read (a faulty file costs no pass), distributions over the text, what earlier runs predict for the
measured KL and so what each task can show. Then every task under both models, statistics over all tasks, and the run is
added to what was seen. What was answered is kept in the job's scratch: the attempt after a lost one asks nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.contracts.notice import Notice
from app.contracts.notices import Untested
from app.contracts.task import FileTask, HarnessTask
from app.kinds.tasks.notices import TasksNotice
from app.kinds.tasks.report import (
    AnyTaskResult,
    FlipCurve,
    FlipPrediction,
    HarnessTaskResult,
    NotFinite,
    SeenRun,
    TaskResult,
    TasksReport,
)
from app.kinds.tasks.request import TasksRequest
from app.kinds.tasks.view import verdict
from app.models.tasks.checks import check_room, check_tasks
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from app.models.tasks.power import level_of, level_told
from app.models.tasks.reading import read_source
from workers.analysis.flips import runs as flip_runs
from workers.analysis.flips.prediction import Predictor, grid
from workers.analysis.flips.runs import Run
from workers.analysis.paired import mcnemar
from workers.answering.harness.running import Harnessed, NotScoredError, prepare
from workers.answering.pair import Answered, AnsweringPair, fingerprint_of
from workers.answering.sandbox import runner
from workers.answering.scored import documents_of
from workers.diagnosis.tasks.answer_classes import answer_classes
from workers.diagnosis.tasks.class_slices import sliced
from workers.diagnosis.tasks.export import export_metrics as export_tasks
from workers.diagnosis.tasks.export import write_answers
from workers.diagnosis.tasks.result import Planned, results
from workers.engine.room import EngineRoom
from workers.measuring.attempt import counted
from workers.measuring.gauges import export_metrics
from workers.measuring.limitations import without
from workers.measuring.pair import Measured, PairAttempt
from workers.measuring.sides import Sides, resolve
from workers.process.handler import JobContext
from workers.text.documents import TextDocument
from workers.text.tokenization import bos_of, load_tokenizer

# Runs of a chart, the most recent ones.
_SEEN: Final = 200


def tasks(request: TasksRequest, context: JobContext, room: EngineRoom) -> TasksReport:
    """Runs the job and returns its report; answers and per-token values go to `context.output`.

    Raises `HemostatError` for what request, models, files or machine do not allow, `JobCancelled` when told to stop.
    """
    found = check_tasks(request.tasks, context.settings, seed=request.seed)
    asked = [_asked(request, index, read, context) for index, read in enumerate(found)]
    if any(isinstance(task, FileTask) and task.format == "humaneval" for task in request.tasks):
        runner.require(check_cancelled=context.check_cancelled)
    with counted(room, context):
        return _Tasks(request, context, room, asked).run()


@dataclass(frozen=True)
class _Asked:
    """What one task asks, and the fingerprint of all that it draws from."""

    items: Sequence[Item]
    source: str
    harness: Harnessed | None = None


def _asked(request: TasksRequest, index: int, read: list[Item] | HarnessRows, context: JobContext) -> _Asked:
    task, pointer = request.tasks[index], f"/tasks/{index}"
    if isinstance(task, HarnessTask):
        assert isinstance(read, HarnessRows)  # noqa: S101 - such tasks are read as rows
        context.log(f"{task.title}: reading the definition of {task.task}")
        prepared = prepare(task, read, seed=request.seed, pointer=pointer, check_cancelled=context.check_cancelled)
        if not prepared.items[0].choices:
            reference, _, origin = resolve(request, context)
            for info in (reference.info, origin):
                check_room(prepared.max_tokens, info.max_position, index)
        return _Asked(prepared.items, read.fingerprint(prepared.scoring), prepared)
    assert not isinstance(read, HarnessRows)  # noqa: S101 - the others as items
    whole = read if task.items is None else read_source(task, context.settings, pointer=pointer)
    return _Asked(read, fingerprint_of(task, whole))


class _Tasks(PairAttempt):
    """One attempt at one tasks job."""

    def __init__(self, request: TasksRequest, context: JobContext, room: EngineRoom, asked: Sequence[_Asked]) -> None:
        super().__init__(request, context, room)
        self._request = request
        self._asked = asked
        self._unscored: dict[str, Notice] = {}

    def run(self) -> TasksReport:
        context, watch = self._context, self._watch
        with self.pair((self._items, "item")) as pair:
            sides, measured = pair.sides, self.measure(pair, "fast")
            with watch.phase("statistics"):
                kl = measured.summary.divergence.kl.mean
                text_classes = self._classified(pair.documents, pair.corpus, measured.positions, sides.reference)
            tokenizer = load_tokenizer(sides.reference.tokenizer)
            both = AnsweringPair(sides, tokenizer, bos_of(tokenizer), self._room, self._store, context)
            predictor = Predictor(self._earlier(sides))
            planned = [
                Planned(self._predicted(predictor, one, kl, sides.reference.weights), one.source) for one in self._asked
            ]
            self._tell(planned)
            with watch.phase("tasks"):
                answers = self._answers(both)
            answered = [one for one in answers if one is not None]
            scored = [plan for plan, one in zip(planned, answers, strict=True) if one is not None]
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                found = results(answered, scored, self._request)
                lost = [nobody for nobody, one in zip(self._nobodys(), answers, strict=True) if nobody and one is None]
                classes, unscored = (
                    [answer_classes(one, tokenizer, check_cancelled=context.check_cancelled) for one in some]
                    for some in (answered, lost)
                )
                found, adjusted = sliced(found, answered, classes, unscored=list(zip(lost, unscored, strict=True)))
                report = self._report(found, predictor, measured, adjusted)
            with watch.phase("report"):
                measured.write(text_classes)
                write_answers(answered, classes, self._request, context.output)
                export_metrics(report, measured.values, context)
                export_tasks(report, context)
                self._remember(found, measured)
                context.progress("report", 1, 1)
        return report

    def _items(self, *_: object) -> list[TextDocument]:
        """The items as the texts that no step may look at."""
        return [
            document
            for task, of in zip(self._request.tasks, self._asked, strict=True)
            for document in documents_of(task.title, of.items)
        ]

    def _answers(self, both: AnsweringPair) -> list[Answered | None]:
        """Of each task in its order; None of one whose definition fails on what a model said, told as a warning. Raises
        `NotScoredError` where that is all."""
        answers: list[Answered | None] = []
        failed: list[NotScoredError] = []
        for number, (task, asked) in enumerate(zip(self._request.tasks, self._asked, strict=True)):
            self._context.check_cancelled()
            if len(self._asked) > 1:
                of = f"task {number + 1} of {len(self._asked)}"
                self._context.log(f"{of}: {task.title}, {len(asked.items):,} items")
            if not isinstance(task, HarnessTask):
                answers.append(both.answer(number, task, asked.items))
                continue
            assert asked.harness is not None  # noqa: S101 - `_asked` prepared it
            try:
                answers.append(both.answer_harness(number, task, asked.harness))
            except NotScoredError as error:
                self._unscored[task.title] = TasksNotice.NOT_SCORED(task=task.title, why=error.detail)
                self._context.log(self._unscored[task.title].text)
                failed.append(error)
                answers.append(None)
        if len(failed) == len(answers):
            raise failed[0]
        return answers

    def _nobodys(self) -> list[Answered | None]:
        """Of each task of the harness what it asks, without answers; None of the others."""
        return [
            None
            if of.harness is None
            else Answered(task, of.items, of.source, {}, {}, of.harness.metric, 0, harness=of.harness.definition)
            for task, of in zip(self._request.tasks, self._asked, strict=True)
        ]

    def _earlier(self, sides: Sides) -> list[Run]:
        """Runs of other models: one of this very candidate would predict itself."""
        return [
            run
            for run in flip_runs.read(self._context.settings.home)
            if run.job != self._context.job_id and run.candidate != sides.candidate.weights
        ]

    def _predicted(self, predictor: Predictor, asked: _Asked, kl: float | None, reference: str) -> FlipPrediction:
        """What earlier runs say of a task, at the measured KL, before it is answered."""
        if kl is None or kl <= 0:
            return FlipPrediction(
                status="outside",
                rate=None,
                interval=None,
                sentence="Nothing is predicted: the measured KL is not above zero.",
            )
        told = predictor.predict(kl, len(asked.items), task=asked.source, reference=reference, seed=self._request.seed)
        return FlipPrediction(
            status=told.status,
            rate=told.rate,
            interval=told.interval,
            sentence=told.sentence,
        )

    def _tell(self, planned: Sequence[Planned]) -> None:
        """What each task can show goes to the log, before any is answered."""
        level = level_of(len(planned))
        for task, asked, plan in zip(self._request.tasks, self._asked, planned, strict=True):
            rate, told = plan.rate
            least = mcnemar.detectable(len(asked.items), rate, level=level)
            shown = "too few to show any difference"
            if least is not None:
                shown = f"enough to show a difference of {100 * least:.1f} points or more"
            source = "predicted" if told else "assumed"
            self._context.log(
                f"{task.title}: {len(asked.items):,} items are {shown} at the {source} flip rate of {100 * rate:.2g} % "
                f"(McNemar, 80 % power, {level_told(level)})"
            )

    def _report(
        self, found: Sequence[AnyTaskResult], predictor: Predictor, measured: Measured, class_multiplicity: str
    ) -> TasksReport:
        report = measured.reported(
            TasksReport,
            verdict="",
            tasks=tuple(one for one in found if isinstance(one, TaskResult)),
            harness_tasks=tuple(one for one in found if isinstance(one, HarnessTaskResult)),
            unscored=tuple(self._unscored),
            class_multiplicity=class_multiplicity,
            seen=tuple(
                SeenRun(task=run.task, kl=run.kl, rate=run.rate, items=run.items) for run in predictor.runs[-_SEEN:]
            ),
            curve=_curve(predictor, found, measured.summary.divergence.kl.mean),
            not_tested=_not_tested(measured.limits(), found),
            warnings=(*measured.warnings(), *self._unscored.values(), *_warnings(found)),
        )
        return report.model_copy(update={"verdict": verdict(report)})

    def _remember(self, found: Sequence[AnyTaskResult], measured: Measured) -> None:
        """Adds the run to what was seen; a report is not lost because that fails."""
        try:
            flip_runs.add(self._context.settings.home, learned(found, measured))
        except OSError as error:
            self._context.log(f"the run is not kept for predictions: {error.strerror}")


def learned(found: Sequence[AnyTaskResult], measured: Measured) -> list[Run]:
    """What is worth remembering: a task that the reference can answer, at a KL above zero that flips go with."""
    kl, sides = measured.summary.divergence.kl.mean, measured.sides
    if not flip_runs.teaches(step.type for step in measured.request.candidate.recipe):
        return []
    if kl is None or kl <= 0 or measured.summary.nonfinite_positions:
        return []
    return [
        Run(
            job=measured.context.job_id,
            task=result.name,
            fingerprint=result.fingerprint,
            items=result.items,
            flips=result.flips.harmful + result.flips.helpful,
            kl=kl,
            reference=sides.reference.weights,
            candidate=sides.candidate.weights,
            text=measured.corpus.fingerprint,
            finished_at=time.time(),
            source=result.source_fingerprint,
        )
        for result in found
        if result.outcome != "at_chance" and not any(_broken(result))
    ]


def _curve(predictor: Predictor, found: Sequence[AnyTaskResult], kl: float | None) -> FlipCurve | None:
    """The prediction for the job's first task over all KL that were seen."""
    if not predictor.runs:
        return None
    values = [run.kl for run in predictor.runs] + ([kl] if kl else [])
    first = found[0]
    across = grid(min(values) / 1.2, max(values) * 1.2)
    told = [predictor.model.predict(one, first.items, task=first.source_fingerprint) for one in across]
    return FlipCurve(
        items=first.items,
        kl=across,
        low=tuple(low for low, _, _ in told),
        rate=tuple(rate for _, rate, _ in told),
        high=tuple(high for _, _, high in told),
    )


def _not_tested(of_distributions: Sequence[Notice], found: Sequence[AnyTaskResult]) -> tuple[Notice, ...]:
    others = Untested.OTHER_TASKS(tasks=tuple(result.name for result in found))
    listed = (*without(of_distributions, Untested.TASKS), others)
    ran_code = any(isinstance(result, TaskResult) and result.format == "humaneval" for result in found)
    return listed if ran_code else (*listed, TasksNotice.EXECUTED_CODE())


def _warnings(found: Sequence[AnyTaskResult]) -> list[Notice]:
    told = []
    for result in found:
        if result.outcome == "at_chance":
            told.append(TasksNotice.AT_CHANCE(task=result.name))
        elif result.chance.candidate_at_chance:
            told.append(TasksNotice.CANDIDATE_AT_CHANCE(task=result.name))
        if result.shortened:
            told.append(TasksNotice.SHORTENED_ITEMS(items=result.shortened, task=result.name))
        for who, broken in zip(("reference", "candidate"), _broken(result), strict=True):
            if broken is not None:
                where = {"positions": broken.positions, "items": broken.items, "asked": result.items}
                told.append(TasksNotice.NOT_FINITE(task=result.name, model=who, **where))
    return told


def _broken(result: AnyTaskResult) -> tuple[NotFinite | None, NotFinite | None]:
    """Of reference and candidate, where it gives no number; None if it gives one everywhere."""
    first, second = (
        found if found is not None and found.positions else None
        for found in (result.not_finite_reference, result.not_finite_candidate)
    )
    return first, second
