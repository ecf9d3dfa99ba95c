"""What the report of a trajectory says of what was not scored, and of how sure its severity is."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from app.contracts.decoding import TemperatureSampling, TopK
from tests.support.making import modified
from workers.decoding.distances import ShapedDistances
from workers.diagnosis.trajectory.prompts import Prompt
from workers.diagnosis.trajectory.report import _warnings, distances, not_tested
from workers.diagnosis.trajectory.scoring import TextPool


def base_of(count, tokens, conversations=0):
    """So many prompts, the first of them conversations, and the reference's texts: the same tokens after each."""
    prompts = [Prompt(str(one), "prose", (9, 8, 7), conversation=one < conversations) for one in range(count)]
    pool = TextPool(prompts)
    return prompts, pool.corpus([pool.add(number, tokens) for number in range(count)], 8, bos=False)


def test_the_limitations_are_of_what_the_models_wrote_whatever_the_prompts_are():
    for conversations, forms in ((0, {"conversations"}), (1, set()), (3, {"plain_text"})):
        prompts, base = base_of(3, [1, 2], conversations)
        request = SimpleNamespace(tokens=2, text=None)
        found = SimpleNamespace(base=base, prompts=prompts, request=request)
        codes = [str(one.code) for one in not_tested(found)]
        assert len(codes) == len(set(codes))
        assert {"conversations", "plain_text"} & set(codes) == forms
        assert {"text_by_people", "long_texts"} <= set(codes)
        assert not {"free_running_generation", "sampling_settings", "text_of_the_model"} & set(codes)


def test_a_cut_that_every_position_agrees_on_has_the_width_of_so_few_prompts():
    """Infinite at every position after eight prompts, or at none: the exact interval of 8 of 8, and of 0 of 8."""
    _, base = base_of(8, [1, 2, 3])
    yes, no = np.ones(24, dtype=bool), np.zeros(24, dtype=bool)

    def shape(kl, differ):
        return ShapedDistances(np.full(24, kl), np.full(24, 0.25), np.zeros(24), yes, differ, yes)

    shapings = [TopK(name="top_k"), TopK(name="top_k", k=2), TemperatureSampling(name="temperature")]
    shapes = [shape(np.inf, yes), shape(0.1, no), shape(0.1, no)]
    request = SimpleNamespace(shapings=shapings)
    found = SimpleNamespace(base=base, request=request, measured=[SimpleNamespace(shapes=shapes)])
    every, none, warm = distances(found, 0)
    most = stats.binomtest(0, 8).proportion_ci(0.95, "exact").high
    assert every.infinite.ci == pytest.approx((1 - most, 1))
    assert every.top1.ci == pytest.approx((1 - most, 1))
    assert none.infinite.ci == pytest.approx((0, most))
    assert (warm.infinite.mean, warm.infinite.ci) == (0, None)  # temperature cuts nothing off, whatever the text


def model(alias, scheme):
    quantization = {"quant_method": "compressed-tensors"} if scheme.startswith("W") else None
    return SimpleNamespace(alias=alias, info=SimpleNamespace(scheme=scheme, quantization=quantization))


def warned(*making, prompts=32, alike=0, nonfinite=0, length=40, reference="bf16", candidates="bf16"):
    """`making`: what was warned of while the last candidate was made; `alike`: prompts that repeat an earlier one."""
    sides = [
        SimpleNamespace(
            modified=modified(*making * (number == candidates.count(" "))),
            packed=scheme.startswith("W") and scheme != reference,
            candidate=model(scheme.lower(), scheme),
            reference=model("base", reference),
        )
        for number, scheme in enumerate(candidates.split())
    ]
    texts = [SimpleNamespace(tokens=range(length))] * prompts
    found = SimpleNamespace(
        prompts=[SimpleNamespace(tokens=(1, max(number, alike))) for number in range(prompts)],
        allowed=(),
        request=SimpleNamespace(prompts=32),
        sides=sides,
        conditions=SimpleNamespace(engine=SimpleNamespace(dtype="bfloat16")),
        written=[SimpleNamespace(texts={"greedy": texts})],
    )
    cells = [SimpleNamespace(nonfinite_positions=nonfinite)]
    return _warnings(found, cells)


def test_what_spoils_the_numbers_is_warned_of_with_its_number():
    assert warned() == warned(length=8) == []
    for given, words in (
        (warned("too little text"), ["the candidate by quantize.gptq: too little text"]),
        (warned("too little text", candidates="bf16 bf16"), ["candidate 2 by quantize.gptq: too little text"]),
        (warned(prompts=8), ["8 prompts instead of 32"]),
        (warned(prompts=1), ["1 prompt instead of 32", "this prompt only"]),
        (warned(prompts=5), ["5 prompts instead of 32", "these prompts only"]),
        (warned(alike=1), ["1 of 32 prompts repeats"]),
        (warned(alike=3), ["3 of 32 prompts repeat "]),
        (warned(nonfinite=7), ["7 in all cells"]),
        (warned(candidates="W4A16"), ["w4a16 runs on other kernels"]),
        (warned(reference="W8A8", candidates="bf16 bf16"), ["reference is packed (W8A8)"]),
        (warned(reference="f32", candidates="f16 bf16"), ["f16 are stored as float16", "base are stored as float32"]),
        (warned(length=7), ["shorter than eight tokens"]),
    ):
        assert len(given) == len(words)
        for one, word in zip(given, words, strict=True):
            assert word in one.text
