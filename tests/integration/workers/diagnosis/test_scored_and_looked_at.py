"""A document that a recipe's step looks at is not scored: every kind of job refuses it before an engine is started."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.errors import ErrorCode
from app.contracts.notice import Notice
from app.models.tasks.checks import check_tasks
from app.settings import Settings
from tests.support.refusals import refused
from tests.support.tiny_jobs import WORDS, Jobs, Json, body, document, inline, validated
from workers.diagnosis.compare.job import _Compare
from workers.diagnosis.tasks.job import _asked, _Tasks
from workers.engine.room import EngineRoom
from workers.process.handler import JobCancelled

SCORED = [document(number) for number in range(40)]
TEXT = inline(SCORED)
# The fourth of the scored documents stands in it, in another case and under another name.
LOOKED_AT = inline([document(100), document(101), {"id": "mine", "text": SCORED[3]["text"].upper()}])
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
    "calibrate": {"text": inline([document(number, domain="f") for number in range(200, 240)]), "test_text": TEXT},
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


def run(kind: str, jobs: Jobs, name: str = "", *, stop_in: str = "", **changes: Any) -> Any:
    asked = body(kind, [RTN, WANDA], SCORED) | KINDS.get(kind, {}) | changes
    return jobs.run(validated(asked), name, stop_in=stop_in)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_with_the_step(kind: str, jobs: Jobs) -> None:
    with refused(ErrorCode.CALIBRATION_OVERLAP, "/candidate/recipe/1/calibration") as caught:
        run(kind, jobs)
    assert "'d3'" in caught.value.detail


def test_a_second_candidate_s_steps_count_as_well(jobs: Jobs) -> None:
    two = {"candidate": {"model": "tiny", "recipe": [RTN]}, "candidates": [{"model": "tiny", "recipe": [WANDA]}]}
    with refused(ErrorCode.CALIBRATION_OVERLAP, "/candidates/0/recipe/0/calibration"):
        run("trajectory", jobs, **two)


def looked_at(warnings: Sequence[Notice]) -> list[tuple[Any, Any]]:
    """How many of what the steps looked at, by each warning."""
    assert {warning.code for warning in warnings} <= {"looked_at"}
    return [(warning.facts["documents"], warning.facts["what"]) for warning in warnings]


def looking_at(*documents: Json) -> Json:
    """A candidate one step of which looks at these documents, and at two that are nobody's."""
    step = WANDA | {"calibration": inline([document(100), document(101), *documents])}
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
def test_an_item_of_a_task_is_scored_as_well(written: str, jobs: Jobs) -> None:
    """The text of the distributions shares nothing."""
    candidate = looking_at({"id": "mine"} | ITEM_TEXTS[written])
    with refused(ErrorCode.CALIBRATION_OVERLAP, "/candidate/recipe/1/calibration") as caught:
        run("tasks", jobs, candidate=candidate, tasks=TASKS)
    assert caught.value.detail == "1 item that prune.wanda looks at is also scored, such as 'arc/q3'"


@pytest.mark.parametrize("kind", ["compare", "attribute", "trajectory", "calibrate", "tasks"])
def test_it_is_done_if_the_request_allows_it(kind: str, jobs: Jobs) -> None:
    """As far as the step that looks at the document, or at the item."""
    changes = {"candidate": looking_at({"id": "mine", "text": ASKED})} if kind == "tasks" else {}
    with pytest.raises(JobCancelled):
        run(kind, jobs, stop_in="modify: blocks", allow_overlap=True, **changes)


def test_as_many_items_are_told_as_the_steps_look_at(jobs: Jobs) -> None:
    mine = [{"id": f"mine{n}", "text": QUESTIONS[n]["question"]} for n in (3, 5)]
    given = body("tasks", [], SCORED) | KINDS["tasks"] | {"allow_overlap": True}
    expected = ([(2, "scored item")], [(1, "scored item")], [])
    for documents, told in zip((mine, mine[:1], []), expected, strict=True):
        request, context = validated(given | {"candidate": looking_at(*documents)}), jobs.attempt()
        asked = [
            _asked(request, 0, read, context) for read in check_tasks(request.tasks, jobs.settings, seed=request.seed)
        ]
        work = _Tasks(request, context, jobs.room, asked)
        work._read_text((work._items, "item"))
        assert looked_at(work._text_warnings()) == told


def test_a_conversation_that_tool_calls_are_asked_for_in_is_scored_as_well(jobs: Jobs) -> None:
    calls = {"generate_tool_calls": {"text": inline([conversation(number) for number in range(4)]), "prompts": 3}}
    candidate = looking_at(conversation(2) | {"id": "mine"})
    with refused(ErrorCode.CALIBRATION_OVERLAP, "/candidate/recipe/1/calibration") as caught:
        run("compare", jobs, "refused", candidate=candidate, **calls)
    assert caught.value.detail == "1 conversation that prune.wanda looks at is also scored, such as 'c2'"
    for name, changes in (
        ("allowed", {"candidate": candidate, "allow_overlap": True}),
        ("not asked", {"candidate": looking_at(conversation(3) | {"id": "mine"})}),
    ):
        with pytest.raises(JobCancelled):
            run("compare", jobs, name, stop_in="modify: blocks", **changes, **calls)


def test_as_many_conversations_are_told_as_the_recipe_s_steps_look_at(jobs: Jobs) -> None:
    """Apart from the text's documents; those beyond `prompts` do not count."""
    asked = {"text": inline([conversation(number) for number in range(4)]), "prompts": 3}
    given = body("compare", [], [document(1) | {"id": "c2"}, document(4)])
    given |= {"generate_tool_calls": asked, "allow_overlap": True}
    mine = [conversation(number) | {"id": f"mine{number}"} for number in (0, 2, 3)]
    two, one = (2, "scored conversation"), (1, "scored conversation")
    for documents, told in (
        ([*mine, document(1)], [(1, "scored document"), two]),
        (mine, [two]),
        (mine[1:], [one]),
        (mine[2:], []),
    ):
        request = validated(given | {"candidate": looking_at(*documents)})
        work = _Compare(request, jobs.attempt(), jobs.room)
        work._read_text((work._conversations, "conversation"))
        assert looked_at(work._text_warnings()) == told
