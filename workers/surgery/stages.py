"""What of a recipe is done at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from app.recipes.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `end` (exclusive) of a recipe, done at once."""

    first: int
    end: int
    streamed: bool


def stages(recipe: Recipe) -> Iterator[Stage]:
    """The stages of a recipe in turn: neighbouring steps that change one weight at a time are one, every other step is
    one of its own."""
    kinds = [(index, step.is_streamed) for index, step in enumerate(recipe)]
    for streamed, run in groupby(kinds, key=lambda pair: pair[1]):
        indices = [index for index, _ in run]
        if streamed:
            yield Stage(indices[0], indices[-1] + 1, streamed=True)
        else:
            yield from (Stage(index, index + 1, streamed=False) for index in indices)
