"""Has the reference and one setting of a sweep answer the request's tasks, as a job of kind `tasks` has them answered.

The reference answers once: its hidden states and its texts are kept, and found again at the next setting. So is what a
setting answered, by the attempt after a lost one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import FileTask, ShippedTask
from app.kinds.sweep.request import SweepRequest
from app.models.checkpoint import inspect
from app.models.tasks.checks import check_tasks
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from app.recipes.recipe import Recipe
from workers.answering.pair import Answered, AnsweringPair
from workers.answering.sandbox import runner
from workers.answering.scored import documents_of
from workers.distributions.reference_store import ReferenceStore
from workers.engine.room import EngineRoom
from workers.measuring.points.ground import Ground
from workers.measuring.recipes import Bench, RefusedError
from workers.process.handler import JobContext
from workers.text.documents import TextDocument
from workers.text.tokenization import bos_of, load_tokenizer


@dataclass(frozen=True)
class Questions:
    """The tasks of a request, with their items."""

    tasks: tuple[ShippedTask | FileTask, ...]
    items: tuple[Sequence[Item], ...]

    @classmethod
    def read(cls, request: SweepRequest, context: JobContext) -> Questions:
        """Reads the files. Raises what `check_tasks` raises, and CODE_SANDBOX_UNAVAILABLE for code where this machine
        cannot confine it."""
        read = check_tasks(request.tasks, context.settings, seed=request.seed)
        if any(isinstance(task, FileTask) and task.format == "humaneval" for task in request.tasks):
            runner.require(check_cancelled=context.check_cancelled)
        return cls(request.tasks, tuple(items for items in read if not isinstance(items, HarnessRows)))

    @property
    def documents(self) -> list[TextDocument]:
        """The items as the texts that no step may have looked at."""
        return [
            document
            for task, items in zip(self.tasks, self.items, strict=True)
            for document in documents_of(task.title, items)
        ]


class Examiner:
    """Asks the same questions at one setting after another."""

    def __init__(
        self,
        questions: Questions,
        ground: Ground,
        bench: Bench,
        room: EngineRoom,
        store: ReferenceStore,
        context: JobContext,
    ) -> None:
        self._questions, self._ground, self._bench = questions, ground, bench
        self._room, self._store, self._context = room, store, context
        self._tokenizer = load_tokenizer(ground.reference.tokenizer)

    def answers(self, recipe: Recipe) -> list[Answered]:
        """Both models' answers to every task, the candidate after `recipe`; its checkpoint is made again where the
        store has dropped it.

        Raises what engines raise, WINDOW_TOO_LARGE, CODE_SANDBOX_UNAVAILABLE, RECIPE_NOT_APPLICABLE if the model no
        longer takes the recipe, and `JobCancelled`.
        """
        sides = self._ground.sides
        try:
            made = self._bench.make(recipe)
        except RefusedError as error:
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"a setting that was measured before cannot be made again: {error}",
                hint="what the recipe reads may have changed meanwhile: send the job again",
                pointer="/candidate/recipe",
            ) from error
        with made as modified:
            candidate = replace(sides.candidate, info=inspect(modified.path), weights=modified.fingerprint, _head=None)
            pair = AnsweringPair(
                replace(sides, candidate=candidate, modified=modified),
                self._tokenizer,
                bos_of(self._tokenizer),
                self._room,
                self._store,
                self._context,
                part=modified.fingerprint[:16],
            )
            return [self._one(pair, number) for number in range(len(self._questions.tasks))]

    def _one(self, pair: AnsweringPair, number: int) -> Answered:
        self._context.check_cancelled()
        return pair.answer(number, self._questions.tasks[number], self._questions.items[number])
