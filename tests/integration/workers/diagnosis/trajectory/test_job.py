"""A trajectory job from request to report, with real engines on tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.decoding import DECODERS
from app.contracts.errors import ErrorCode
from app.kinds.trajectory.report import TrajectoryReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from tests.support.tiny_jobs import RTN3, Jobs, Json, body, document, validated
from workers.diagnosis.trajectory.pairs import first_difference

PROMPTS, TOKENS = 7, 12
DOCUMENTS = [document(number, 20, "prose" if number % 2 else "code") for number in range(PROMPTS)]


def request(**changes: Any) -> Any:
    asked = {"prompts": PROMPTS, "prompt_tokens": 8, "tokens": TOKENS}
    given = body("trajectory", [RTN3], DOCUMENTS) | asked | changes
    return validated({name: value for name, value in given.items() if name != "window"})


@pytest.fixture(scope="module")
def whole(module_jobs: Jobs) -> tuple[TrajectoryReport, Context]:
    """All thirteen decoders, a wounded candidate and the reference itself."""
    return module_jobs.run(request(candidates=[{"model": "tiny"}], self_check=True)), module_jobs.context


def texts(context: Context) -> int:
    return len(context.kept("texts/*/[0-9]*.json"))


def lines(context: Context) -> list[Json]:
    return [json.loads(line) for line in (context.output / "texts.jsonl").read_text().splitlines()]


def test_every_decoder_of_every_candidate_has_a_cell(whole: tuple[TrajectoryReport, Context]) -> None:
    report, _ = whole
    assert [(cell.decoder, cell.candidate) for cell in report.cells] == [
        (name, index) for name in DECODERS for index in (0, 1)
    ]
    assert {run.name: run.engine for run in report.decoders if run.engine == "vllm"}.keys() == {
        "greedy",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
    }
    assert report.prompts == PROMPTS
    assert len(report.distances) == 12


def test_the_reference_against_itself_writes_the_same_texts_at_no_divergence(
    whole: tuple[TrajectoryReport, Context],
) -> None:
    report, _ = whole
    for cell in (cell for cell in report.cells if cell.candidate == 1):
        assert cell.first_divergence.diverged.mean == 0
        assert cell.kl_reference_text.mean == cell.kl_candidate_text.mean == 0
        assert cell.amplification.conclusion == "no_damage"
        assert all(point.share == 1 for point in cell.survival)
    for distance in (one for one in report.distances if one.candidate == 1):
        assert distance.tv.mean == 0
        assert distance.kl.mean == 0
        assert distance.top1.mean == 1


def test_classes_of_the_generated_text_add_up_to_the_whole(whole: tuple[TrajectoryReport, Context]) -> None:
    """Two classes are known from the texts' tokens alone: the first eight of each, and special tokens."""
    report, context = whole
    written: dict[tuple[str, str], list[list[int]]] = {}
    for line in lines(context):
        written.setdefault((line["model"], line["decoder"]), []).append(line["tokens"])
    special = set(make_tokenizer().all_special_ids)
    first_cells = [cell for cell in report.cells if cell.decoder == report.decoders[0].name]
    for cell, by_class in zip(first_cells, report.token_classes.by_candidate, strict=True):
        ours, theirs = written["reference", cell.decoder], written[f"candidate {cell.candidate + 1}", cell.decoder]
        for texts, side, whole_kl in (
            (ours, by_class.reference_text, cell.kl_reference_text),
            (theirs, by_class.candidate_text, cell.kl_candidate_text),
        ):
            tokens = sum(map(len, texts))
            by_name = {one.name: one for one in side}
            assert by_name["answer_start"].tokens == sum(min(8, len(text)) for text in texts)
            ends = sum(token in special for text in texts for token in text)
            assert (by_name["template"].tokens if "template" in by_name else 0) == ends
            for one in side:
                assert one.share == pytest.approx(one.tokens / tokens)
                if one.difference is None:
                    continue
                assert one.kl.mean is not None
                assert one.difference.mean is not None
                assert whole_kl.mean is not None
                rest = one.kl.mean - one.difference.mean
                summed = one.tokens * one.kl.mean + (tokens - one.tokens) * rest
                assert summed == pytest.approx(tokens * whole_kl.mean, rel=1e-6, abs=1e-12)
        first = [first_difference(one, other) for one, other in zip(ours, theirs, strict=True)]
        found = by_class.first_divergence
        assert found.parted + found.after_the_end == sum(at is not None for at in first)
        assert found.parted == sum(at is not None and at <= len(text) for at, text in zip(first, ours, strict=True))
        start = next(one for one in found.classes if one.name == "answer_start")
        early = [at is not None and at <= min(8, len(text)) for at, text in zip(first, ours, strict=True)]
        assert start.divergences == sum(early)
        assert start.tokens == sum(min(at or TOKENS, 8, len(text)) for at, text in zip(first, ours, strict=True))
        if found.parted:
            assert start.share.mean == pytest.approx(start.divergences / found.parted)


def test_the_common_blocks_speak_of_each_candidate(whole: tuple[TrajectoryReport, Context]) -> None:
    report, _ = whole
    wounded, same = (run.blocks for run in report.candidates)
    assert wounded is not None
    assert same is not None
    assert wounded.divergence == report.divergence
    assert wounded.domains == report.domains
    assert wounded.divergence.kl.mean == report.cells[0].kl_reference_text.mean
    assert same.divergence.kl.max == 0
    assert same.top1_agreement.mean == 1
    assert same.perplexity.candidate == same.perplexity.reference
    # The difference form rounds ln p of the reference by the candidate that it is taken with.
    assert same.perplexity.reference == pytest.approx(wounded.perplexity.reference, rel=1e-5)
    assert set(same.domains) == {"prose", "code"}
    assert "candidate A" in report.verdict


def test_kl_along_both_texts_is_that_of_transformers(
    whole: tuple[TrajectoryReport, Context], settings: Settings
) -> None:
    """The texts as they were written, scored by transformers in float32, both models."""
    report, context = whole
    reference = settings.home / "models.toml"
    paths = [
        Path(reference.read_text().split('"')[1]),
        next((settings.home / "checkpoints").glob("*/config.json")).parent,
    ]
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in paths]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(paths[0])
    documents = {one["id"]: one["text"] for one in DOCUMENTS}
    for whose, field in (("reference", "kl_reference_text"), ("candidate 1", "kl_candidate_text")):
        found = []
        for line in lines(context):
            if line["decoder"] != "greedy" or line["model"] != whose:
                continue
            prompt = tokenizer(documents[line["document"]], add_special_tokens=False)["input_ids"][:8]
            ids = torch.tensor([[*prompt, *line["tokens"]]])
            with torch.inference_mode():
                p, q = (model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(1) for model in models)
            found.append((p.exp() * (p - q)).sum(1))
        cell = report.cells[0]
        measured = getattr(cell, field).mean
        assert measured == pytest.approx(float(torch.cat(found).mean()), rel=0.05)


def test_greedy_texts_are_the_most_probable_tokens(whole: tuple[TrajectoryReport, Context]) -> None:
    _, context = whole
    by = {(line["decoder"], line["model"], line["document"]): line["tokens"] for line in lines(context)}
    for (decoder, model, name), tokens in by.items():
        assert 1 <= len(tokens) <= TOKENS
        if decoder == "greedy" and model == "candidate 2":
            assert tokens == by["greedy", "reference", name]


def test_progress_counts_tokens_and_ends_at_all_of_them(whole: tuple[TrajectoryReport, Context]) -> None:
    _, context = whole
    told = context.told("generate")
    total = 3 * 13 * PROMPTS * TOKENS
    assert {one for _, one in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == total
    assert len(told) > 3 * 13


def test_metrics_name_each_decoder(whole: tuple[TrajectoryReport, Context]) -> None:
    _, context = whole
    named = {labels["decoder"] for name, _, labels in context.samples if name == "trajectory_amplification_ratio"}
    assert named == set(DECODERS)


def test_a_lost_attempt_loses_no_text_and_the_report_is_the_same(jobs: Jobs) -> None:
    few = [{"name": "greedy"}, {"name": "typical"}]
    asked = request(decoders=few, shapings=[], store_text=False)
    straight = jobs.run(asked, "straight")

    left = texts(jobs.stopped(asked, "job", stop=lambda context: texts(context) >= PROMPTS))
    assert PROMPTS <= left < 4 * PROMPTS
    resumed = jobs.run(asked, "job")
    assert resumed.cells == straight.cells
    assert resumed.samples == ()
    assert all("text" not in line for line in lines(jobs.context))


def test_an_attempt_lost_in_the_middle_of_a_decoder_goes_on_with_the_next_prompts(jobs: Jobs) -> None:
    """Contrastive search looks at eight tokens of a prompt, so that four prompts of the seven are written at once."""
    asked = request(decoders=[{"name": "contrastive"}], shapings=[], store_text=False)
    straight = jobs.run(asked, "straight")

    assert texts(jobs.stopped(asked, "job", stop=lambda context: texts(context) > 0)) == 4
    resumed = jobs.run(asked, "job")
    assert resumed.cells == straight.cells
    assert jobs.context.told("generate")[0][0] == 4 * TOKENS


def test_prompts_that_do_not_fit_the_context_are_refused(jobs: Jobs) -> None:
    with refused(ErrorCode.WINDOW_TOO_LARGE, "/tokens"):
        jobs.run(request(tokens=250))


def test_what_a_candidate_cannot_do_points_at_that_candidate(jobs: Jobs) -> None:
    simulated = {"model": "tiny", "recipe": [{"type": "quantize.activations", "bits": 8}]}
    asked = request(candidates=[simulated], decoders=[{"name": "contrastive"}], shapings=[])
    with refused(ErrorCode.RECIPE_NOT_APPLICABLE, "/candidates/0/model"):
        jobs.run(asked)
