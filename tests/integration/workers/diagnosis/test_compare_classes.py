"""Compare jobs with a real engine on a tiny model: kinds of token, windows beyond the reference's context."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.reports.render import render
from app.settings import Settings
from tests.integration.workers.diagnosis.mitigate.test_job import Context
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom
from workers.measuring.sides import checkpoint_store
from workers.process.handler import JobCancelled
from workers.text.token_classes.catalogue import CLASSES

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
YARN: Json = {"type": "context.yarn", "factor": 2}
RTN3: Json = {"type": "quantize.rtn", "bits": 3, "group_size": 32}


def words(number: int, length: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, length))


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama"), "roomy": tiny("llama", max_position_embeddings=1024)})


def request(documents: list[Json], **changes: Any) -> CompareRequest:
    return CompareRequest.model_validate(
        {
            "kind": "compare",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": [RTN3]},
            "text": {"source": "inline", "documents": documents},
            "window": 64,
            "precision": "float32",
        }
        | changes
    )


def test_classes_stand_in_the_report_with_their_numbers(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    documents = [{"id": f"d{n}", "text": f"{words(n, 20)} {n}45 and {n}7. {words(n + 50, 10)}"} for n in range(8)]
    documents.append(
        {
            "id": "talk",
            "scored": "all",
            "tools": [{"name": "add", "parameters": {"type": "object", "properties": {}}}],
            "messages": [
                {"role": "user", "content": "add one and two"},
                {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]},
            ],
        }
    )
    context = Context(settings, tmp_path)
    report = compare(request(documents), context, room)
    found = {one.name: one for one in report.token_classes.classes} if report.token_classes else {}
    assert {"numbers", "punctuation", "tool_name", "tool_arguments", "template", "answer_start", "rare"} <= set(found)
    rows = pq.read_table(context.output / "tokens.parquet").to_pydict()
    kl, ids = np.asarray(rows["kl"]), np.asarray(rows["token_id"])
    assert {name.removeprefix("class_") for name in rows if name.startswith("class_")} == {one.name for one in CLASSES}
    for one in CLASSES:
        flag = np.asarray(rows[f"class_{one.name}"])
        assert flag.dtype == np.bool_
        assert flag.sum() == (found[one.name].tokens if one.name in found else 0)
        if one.name in found:
            assert kl[flag].mean() == pytest.approx(found[one.name].kl.mean, rel=1e-4)
    counted = np.bincount(ids, minlength=320)
    # Occurrences are over what was read, the first token of each window included, so the scored ones bound them.
    rare = found["rare"]
    assert rare.tokens <= int((counted[ids] <= 2).sum())
    assert report.token_classes is not None
    page = render(json.loads(report.model_dump_json()))
    assert "Tool arguments" in page


def kept(context: Context) -> dict[tuple[str, int], float]:
    rows = pq.read_table(context.output / "tokens.parquet").to_pydict()
    return dict(zip(zip(rows["document"], rows["position"], strict=True), rows["kl"], strict=True))


@pytest.fixture(scope="module")
def long(
    settings: Settings, room: EngineRoom, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CompareReport, Context, list[Json]]:
    documents = [{"id": f"d{n}", "text": words(n, 170)} for n in range(6)]
    context = Context(settings, tmp_path_factory.mktemp("long"))
    asked = request(documents, candidate={"model": "tiny", "recipe": [YARN]}, window=512)
    return compare(asked, context, room), context, documents


def test_the_slices_reach_beyond_the_reference_s_context(long: tuple[CompareReport, Context, list[Json]]) -> None:
    report, _, _ = long
    edges = [band.low for band in report.by_position]
    assert 256 in edges
    assert report.by_position[-1].tokens > 0
    beyond = [band for band in report.by_position if band.low >= 256]
    assert beyond
    assert all(band.kl.mean is not None and band.kl.mean > 0 and band.kl.ci is not None for band in beyond)
    assert report.provenance.protocol.reference_context == 256
    assert any(warning.code == "longer_than_reference" for warning in report.warnings)
    page = render(json.loads(report.model_dump_json()))
    assert "beyond the reference’s context" in page


def test_up_to_its_context_the_reference_is_the_one_of_an_ordinary_window(
    long: tuple[CompareReport, Context, list[Json]], settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    _, context, documents = long
    other = Context(settings, tmp_path)
    compare(request(documents, candidate={"model": "tiny", "recipe": [YARN]}, window=256), other, room)
    short, whole = kept(other), kept(context)
    pairs = np.asarray([(short[at], whole[at]) for at in short if at[1] < 255])
    assert len(pairs) > 1000
    assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < 0.02
    assert pairs[:, 0].mean() == pytest.approx(pairs[:, 1].mean(), rel=0.01)


def test_beyond_it_values_are_those_of_transformers(
    long: tuple[CompareReport, Context, list[Json]], settings: Settings, tiny: Callable[..., Path]
) -> None:
    """The reference on the newest tokens, the candidate on all, by another implementation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report, context, documents = long
    whole = kept(context)
    store = checkpoint_store(context)  # type: ignore[arg-type]
    configs = {file.parent: json.loads(file.read_text()) for file in store.root.glob("*/config.json")}
    (made,) = [folder for folder, config in configs.items() if config["max_position_embeddings"] == 512]
    reference = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32)
    candidate = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny("llama"))
    tokens = torch.tensor(tokenizer(documents[0]["text"])["input_ids"])
    assert len(tokens) > 384 + 10
    ours, oracle = [], []
    with torch.inference_mode():
        after = torch.log_softmax(candidate(tokens[None, :512]).logits[0].double(), dim=-1)
        # The second part: positions 255 to 382 from the tokens up to 383.
        newest = torch.log_softmax(reference(tokens[None, 383 - 255 : 384]).logits[0].double(), dim=-1)
    for row in range(255, 383):
        p, q = newest[row - (383 - 255)], after[row]
        oracle.append(float((p.exp() * (p - q)).sum()))
        ours.append(whole[("d0", row + 1)])
    # bf16 engine against float32: single values differ, their mean hardly.
    assert np.mean(ours) == pytest.approx(np.mean(oracle), rel=0.1)
    assert np.corrcoef(ours, oracle)[0, 1] > 0.95
    assert report.tokens == len(whole)


# Tools and how to call them take more tokens than the smallest model reads.
ROOMY: Json = {"reference": {"model": "roomy"}, "candidate": {"model": "roomy", "recipe": [RTN3]}}
CALLS: Json = {
    "source": "inline",
    "documents": [
        {
            "id": f"c{n}",
            "tools": [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}],
            "messages": [{"role": "user", "content": f"{words(n, 4)}"}],
            "scored": "all",
        }
        for n in range(20)
    ],
}


def test_both_models_write_tool_calls_and_a_lost_attempt_loses_none(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    documents = [{"id": f"d{n}", "text": words(n, 30)} for n in range(7)]
    asked = request(documents, generate_tool_calls={"text": CALLS, "max_tokens": 8}, **ROOMY)
    stopped = Context(settings, tmp_path, stop_in="generate")
    with pytest.raises(JobCancelled):
        compare(asked, stopped, room)
    context = Context(settings, tmp_path)
    found = compare(asked, context, room).tool_calls
    assert found is not None
    assert found.prompts == 20
    assert found.form == "written"  # the tiny model's template knows no tools
    assert found.parsable.reference.of == found.valid.candidate.of == 20
    assert found.right_tool is None
    assert max(found.cut_off) <= 20
    kept = {file: file.read_bytes() for file in (tmp_path / "partial" / "tool_calls").iterdir()}
    assert len(kept) == 4  # 20 prompts, 16 together, two models
    again = Context(settings, tmp_path)
    assert compare(asked, again, room).tool_calls == found
    assert {file: file.read_bytes() for file in kept} == kept


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    documents = [{"id": f"d{n}", "text": words(n, 30)} for n in range(7)]
    asked = request(documents, generate_tool_calls={"text": CALLS, "max_tokens": 4096}, **ROOMY)
    with pytest.raises(HemostatError) as caught:
        compare(asked, Context(settings, tmp_path), room)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.WINDOW_TOO_LARGE, "/generate_tool_calls")
