"""A document that a recipe's step looks at is not scored: every kind of job refuses it before an engine is started."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.checks import check_tasks
from app.settings import Settings
from tests.support.attempts import Context
from workers.diagnosis.compare.job import _Compare
from workers.diagnosis.registry import HANDLERS
from workers.diagnosis.tasks.job import _asked, _Tasks
from workers.engine.room import EngineRoom
from workers.process.handler import JobCancelled

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")


def document(number: int, name: str = "d") -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"{name}{number}", "text": " ".join(rng.choice(WORDS, 60))}


def inline(*documents: Json) -> Json:
    return {"source": "inline", "documents": list(documents)}


SCORED = [document(number) for number in range(40)]
TEXT = inline(*SCORED)
# The fourth of the scored documents stands in it, in another case and under another name.
LOOKED_AT = inline(document(100), document(101), {"id": "mine", "text": SCORED[3]["text"].upper()})
WANDA: Json = {
    "type": "prune.wanda",
    "sparsity": 0.5,
    "calibration": LOOKED_AT,
    "calibration_windows": 2,
    "calibration_window": 32,
}
RTN: Json = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
# What each kind asks for beside models and window.
KINDS: dict[str, Json] = {
    "compare": {"text": TEXT},
    "attribute": {"text": TEXT},
    "trajectory": {"text": TEXT, "prompts": 7, "prompt_tokens": 8, "tokens": 8, "decoders": [{"name": "greedy"}]},
    "calibrate": {"text": inline(*(document(number, "f") for number in range(200, 240))), "test_text": TEXT},
    "sweep": {"text": TEXT, "knobs": [{"step": 1, "field": "sparsity", "values": [0.5, 0.6, 0.7]}]},
    "surface": {
        "text": TEXT,
        "knobs": [
            {"step": 0, "field": "bits", "values": [4, 3]},
            {"step": 1, "field": "sparsity", "values": [0.5, 0.7]},
        ],
    },
}


def question(number: int) -> Json:
    rng = np.random.default_rng(1000 + number)
    return {
        "id": f"q{number}",
        "question": " ".join(rng.choice(WORDS, 12)),
        "choices": {"text": [f"{' '.join(rng.choice(WORDS, 3))} {label}" for label in "ABCD"], "label": list("ABCD")},
        "answerKey": "ABCD"[number % 4],
    }


QUESTIONS = [question(number) for number in range(6)]
ASKED = QUESTIONS[3]["question"]
TASKS = [{"source": "file", "format": "arc", "path": "arc.jsonl"}]
KINDS["tasks"] = {"text": TEXT, "tasks": TASKS}
ADD: Json = {"name": "add", "parameters": {"type": "object"}}


def conversation(number: int) -> Json:
    words = document(300 + number)["text"]
    called = {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": number}}]}
    return {"id": f"c{number}", "messages": [{"role": "user", "content": words}, called], "tools": [ADD]}


@pytest.fixture(scope="module")
def settings(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, home_of: Callable[..., Settings]
) -> Settings:
    texts = tmp_path_factory.mktemp("texts")
    (texts / "arc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return home_of({"tiny": tiny("llama")}, text_root=texts)


@pytest.fixture(autouse=True)
def no_engine_starts(room: EngineRoom) -> Iterator[None]:
    starts = room.starts
    yield
    assert room.starts == starts


def run(kind: str, context: Context, room: EngineRoom, **changes: Any) -> Any:
    body = {
        "kind": kind,
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny", "recipe": [RTN, WANDA]},
        "window": 64,
    }
    return HANDLERS.handler(kind)(HANDLERS.request(kind, body | KINDS.get(kind, {}) | changes), context, room)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_with_the_step(kind: str, settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        run(kind, Context(settings, tmp_path), room)
    assert (caught.value.code, caught.value.pointer) == (
        ErrorCode.CALIBRATION_OVERLAP,
        "/candidate/recipe/1/calibration",
    )
    assert "'d3'" in caught.value.detail


@pytest.mark.parametrize("kind", ["compare", "attribute", "trajectory", "calibrate"])
def test_it_is_done_where_the_request_allows_it(
    kind: str, settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """As far as the step that looks at the document."""
    context = Context(settings, tmp_path, stop_in="modify: blocks")
    with pytest.raises(JobCancelled):
        run(kind, context, room, allow_overlap=True)


def test_a_second_candidate_s_steps_count_as_well(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    two = {"candidate": {"model": "tiny", "recipe": [RTN]}, "candidates": [{"model": "tiny", "recipe": [WANDA]}]}
    with pytest.raises(HemostatError) as caught:
        run("trajectory", Context(settings, tmp_path), room, **two)
    assert (caught.value.code, caught.value.pointer) == (
        ErrorCode.CALIBRATION_OVERLAP,
        "/candidates/0/recipe/0/calibration",
    )


def looking_at(*documents: Json) -> Json:
    """A candidate one step of which looks at these documents, and at two that are nobody's."""
    step = WANDA | {"calibration": inline(document(100), document(101), *documents)}
    return {"model": "tiny", "recipe": [RTN, step]}


ITEM_TEXTS: dict[str, Json] = {
    "the question": {"text": ASKED},
    "as it is asked": {"text": f"question:  {ASKED}\nanswer:"},
    "with its answer": {"text": f"{ASKED} {QUESTIONS[3]['choices']['text'][3]}"},
    "with a wrong one": {"text": f"Question: {ASKED}\nAnswer: {QUESTIONS[3]['choices']['text'][0]}"},
    "as a conversation": {
        "messages": [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": QUESTIONS[3]["choices"]["text"][3]},
        ]
    },
}


@pytest.mark.parametrize("written", ITEM_TEXTS)
def test_an_item_of_a_task_is_scored_as_well(
    written: str, settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """The text of the distributions shares nothing."""
    candidate = looking_at({"id": "mine"} | ITEM_TEXTS[written])
    with pytest.raises(HemostatError) as caught:
        run("tasks", Context(settings, tmp_path), room, candidate=candidate)
    assert (caught.value.code, caught.value.pointer) == (
        ErrorCode.CALIBRATION_OVERLAP,
        "/candidate/recipe/1/calibration",
    )
    assert caught.value.detail == "1 item that step 1 looks at is also scored, such as 'arc/q3'"


def test_items_that_a_request_allows_are_done_as_far_as_the_step(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    candidate = looking_at({"id": "mine", "text": ASKED})
    with pytest.raises(JobCancelled):
        run(
            "tasks",
            Context(settings, tmp_path, stop_in="modify: blocks"),
            room,
            candidate=candidate,
            allow_overlap=True,
        )


def test_as_many_items_are_told_as_the_steps_look_at(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    mine = [{"id": f"mine{n}", "text": QUESTIONS[n]["question"]} for n in (3, 5)]
    body = {"kind": "tasks", "reference": {"model": "tiny"}, "window": 64, "allow_overlap": True} | KINDS["tasks"]
    expected = (["2 scored items were"], ["1 scored item was"], [])
    for documents, told in zip((mine, mine[:1], []), expected, strict=True):
        request = TasksRequest.model_validate(body | {"candidate": looking_at(*documents)})
        context = Context(settings, tmp_path)
        asked = [_asked(request, 0, read, context) for read in check_tasks(request.tasks, settings, seed=request.seed)]
        work = _Tasks(request, context, room, asked)
        work._read_text((work._items, "item"))
        assert [warning.split(" also ")[0] for warning in work._allowed()] == told


def test_a_conversation_that_tool_calls_are_asked_for_in_is_scored_as_well(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    calls = {"generate_tool_calls": {"text": inline(*map(conversation, range(4))), "prompts": 3}}
    candidate = looking_at(conversation(2) | {"id": "mine"})
    with pytest.raises(HemostatError) as caught:
        run("compare", Context(settings, tmp_path / "refused"), room, candidate=candidate, **calls)
    assert (caught.value.code, caught.value.pointer) == (
        ErrorCode.CALIBRATION_OVERLAP,
        "/candidate/recipe/1/calibration",
    )
    assert caught.value.detail == "1 conversation that step 1 looks at is also scored, such as 'c2'"
    for name, changes in (
        ("allowed", {"candidate": candidate, "allow_overlap": True}),
        ("not asked", {"candidate": looking_at(conversation(3) | {"id": "mine"})}),
    ):
        with pytest.raises(JobCancelled):
            run("compare", Context(settings, tmp_path / name, stop_in="modify: blocks"), room, **changes, **calls)


def test_as_many_conversations_are_told_as_the_recipe_s_steps_look_at(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """Apart from the text's documents; those beyond `prompts` do not count."""
    asked = {"text": inline(*map(conversation, range(4))), "prompts": 3}
    body = {"kind": "compare", "reference": {"model": "tiny"}, "window": 64, "allow_overlap": True}
    body |= {"text": inline(document(1) | {"id": "c2"}, document(4)), "generate_tool_calls": asked}
    mine = [conversation(number) | {"id": f"mine{number}"} for number in (0, 2, 3)]
    two, one = "2 scored conversations were", "1 scored conversation was"
    for documents, told in (
        ([*mine, document(1)], ["1 scored document was", two]),
        (mine, [two]),
        (mine[1:], [one]),
        (mine[2:], []),
    ):
        work = _Compare(
            CompareRequest.model_validate(body | {"candidate": looking_at(*documents)}),
            Context(settings, tmp_path),
            room,
        )
        work._read_text((work._conversations, "conversation"))
        assert [warning.split(" also ")[0] for warning in work._allowed()] == told
