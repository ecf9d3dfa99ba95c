"""A trajectory job from request to report, with real engines on tiny models."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.decoding import DECODERS
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import TrajectoryRequest
from app.settings import Settings
from tests.support.tiny import make_tokenizer
from workers.diagnosis.trajectory.job import trajectory
from workers.diagnosis.trajectory.pairs import first_difference
from workers.engine.room import EngineRoom
from workers.process.handler import JobCancelled

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
WOUND = [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]
PROMPTS, TOKENS = 7, 12


def document(number: int) -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"d{number}", "domain": "prose" if number % 2 else "code", "text": " ".join(rng.choice(WORDS, 20))}


class Context:
    """One attempt; records what it was told, and can be told to stop at a point."""

    def __init__(self, settings: Settings, folder: Path, stop: Callable[["Context"], bool] = lambda _: False) -> None:
        self.settings = settings
        self.job_id, self.attempt = "diag_test", 1
        self.scratch, self.output = folder / "partial", folder / "attempt-1"
        for path in (self.scratch, self.output):
            path.mkdir(parents=True, exist_ok=True)
        self.phases: list[str] = []
        self.told: list[tuple[str, int, int]] = []
        self.observed: list[tuple[str, dict[str, str]]] = []
        self._stop = stop

    def progress(self, phase: str, done: int, total: int) -> None:
        assert done <= total or total == 0
        self.told.append((phase, done, total))
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)

    def log(self, message: str) -> None:
        """Not looked at."""

    def check_cancelled(self) -> None:
        if self._stop(self):
            raise JobCancelled

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.observed.append((name, labels))

    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None:
        """Not looked at."""

    def texts(self) -> int:
        return sum(1 for _ in self.scratch.glob("texts/*/[0-9]*.json"))


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama"), "other": tiny("llama", seed=1)})


def request(**changes: Any) -> TrajectoryRequest:
    body: Json = {
        "kind": "trajectory",
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny", "recipe": WOUND},
        "text": {"source": "inline", "documents": [document(number) for number in range(PROMPTS)]},
        "prompts": PROMPTS,
        "prompt_tokens": 8,
        "tokens": TOKENS,
    }
    return TrajectoryRequest.model_validate_json(json.dumps(body | changes))


@pytest.fixture(scope="module")
def whole(
    settings: Settings, room: EngineRoom, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrajectoryReport, Context]:
    """All thirteen decoders, a wounded candidate and the reference itself."""
    context = Context(settings, tmp_path_factory.mktemp("whole"))
    report = trajectory(request(candidates=[{"model": "tiny"}], self_check=True), context, room)
    return report, context


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
    documents = {one["id"]: one["text"] for one in (document(number) for number in range(PROMPTS))}
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
    told = [(done, total) for phase, done, total in context.told if phase == "generate"]
    total = 3 * 13 * PROMPTS * TOKENS
    assert {one for _, one in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == total
    assert len(told) > 3 * 13


def test_metrics_name_each_decoder(whole: tuple[TrajectoryReport, Context]) -> None:
    _, context = whole
    named = {labels["decoder"] for name, labels in context.observed if name == "trajectory_amplification_ratio"}
    assert named == set(DECODERS)


def test_a_lost_attempt_loses_no_text_and_the_report_is_the_same(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    few = [{"name": "greedy"}, {"name": "typical"}]
    asked = request(decoders=few, shapings=[], store_text=False)
    straight = trajectory(asked, Context(settings, tmp_path / "straight"), room)

    def half(context: Context) -> bool:
        return context.texts() >= PROMPTS

    stopped = Context(settings, tmp_path / "job", stop=half)
    with pytest.raises(JobCancelled):
        trajectory(asked, stopped, room)
    left = stopped.texts()
    assert PROMPTS <= left < 4 * PROMPTS
    again = Context(settings, tmp_path / "job")
    resumed = trajectory(asked, again, room)
    assert resumed.cells == straight.cells
    assert resumed.samples == ()
    assert all("text" not in line for line in lines(again))


def test_an_attempt_lost_in_the_middle_of_a_decoder_goes_on_with_the_next_prompts(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """Contrastive search looks at eight tokens of a prompt, so that four prompts of the seven are written at once."""
    asked = request(decoders=[{"name": "contrastive"}], shapings=[], store_text=False)
    straight = trajectory(asked, Context(settings, tmp_path / "straight"), room)

    stopped = Context(settings, tmp_path / "job", stop=lambda context: context.texts() > 0)
    with pytest.raises(JobCancelled):
        trajectory(asked, stopped, room)
    assert stopped.texts() == 4

    again = Context(settings, tmp_path / "job")
    resumed = trajectory(asked, again, room)
    assert resumed.cells == straight.cells
    told = next(done for phase, done, _ in again.told if phase == "generate")
    assert told == 4 * TOKENS


def test_prompts_that_do_not_fit_the_context_are_refused(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        trajectory(request(tokens=250), Context(settings, tmp_path), room)
    assert caught.value.code == ErrorCode.WINDOW_TOO_LARGE
    assert caught.value.pointer == "/tokens"


def test_what_a_candidate_cannot_do_points_at_that_candidate(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    simulated = {"model": "tiny", "recipe": [{"type": "quantize.activations", "bits": 8}]}
    asked = request(candidates=[simulated], decoders=[{"name": "contrastive"}], shapings=[])
    with pytest.raises(HemostatError) as caught:
        trajectory(asked, Context(settings, tmp_path), room)
    assert caught.value.code == ErrorCode.RECIPE_NOT_APPLICABLE
    assert caught.value.pointer == "/candidates/0/model"
