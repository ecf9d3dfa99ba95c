"""Items of a task as documents: what a text would hold that was made of them.

A text that a recipe step looks at has an item where one of its documents is the item's prompt, or prompt and an answer.
The words that a format puts around them and what comes before the prompt make no difference. As all documents they are
compared without case and white space, so that question and answer as two turns of a conversation are the same as in one
line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from app.models.tasks.items import Item
from workers.text.documents import TextDocument

# What the formats write around a question.
_BEFORE, _AFTER = "Question:", "Answer:"


def documents_of(task: str, items: Sequence[Item]) -> list[TextDocument]:
    """Every text that represents an item, each under the item's name. `task` is what reports call the task."""
    return [
        TextDocument(f"{task}/{item.id}", "task", text=text)
        for item in items
        for text in dict.fromkeys(filter(str.strip, _texts(item)))
    ]


def bare_question(item: Item) -> str:
    """The prompt without the words that a format puts around it."""
    return item.prompt.strip().removeprefix(_BEFORE).removesuffix(_AFTER)


def _texts(item: Item) -> Iterator[str]:
    bare = bare_question(item)
    lines = bare.strip().split("\n")
    answers = [*item.choices, item.target, item.solution]
    for prompt in (item.prompt, item.context, bare):
        yield prompt
        yield from (f"{prompt}{item.delimiter or ' '}{answer}" for answer in answers if answer)
    if item.choices and len(lines) == len(item.choices) + 1:  # the question of lettered choices, and what they say
        yield lines[0]
        yield from (f"{lines[0]} {line.partition('. ')[2]}" for line in lines[1:])
    yield from ("".join(pair) for pair in item.pairs)
