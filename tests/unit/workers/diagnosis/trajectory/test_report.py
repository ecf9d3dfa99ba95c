"""What the report of a trajectory says of what was not scored, and of how sure its severity is."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy import stats

from app.contracts.decoding import TemperatureSampling, TopK
from app.kinds.trajectory.report import Cell
from tests.support.making import modified
from workers.decoding.distances import ShapedDistances
from workers.diagnosis.trajectory.prompts import Prompt
from workers.diagnosis.trajectory.report import Found, _warnings, distances, not_tested
from workers.diagnosis.trajectory.scoring import TextPool
from workers.measuring.classify import Classified
from workers.text.token_classes.catalogue import CLASSES


def prompt(name: str, *, conversation: bool) -> Prompt:
    return Prompt(name, "prose", (9, 8, 7), conversation=conversation)


@pytest.mark.parametrize(
    ("conversations", "said"),
    [
        (0, "every prompt is plain text"),
        (1, ""),
        (3, "every prompt is in the chat template"),
    ],
)
def test_no_text_that_was_not_scored_is_called_scored(conversations: int, said: str) -> None:
    """Only what the models wrote is scored, whatever the prompts are."""
    prompts = [prompt(str(number), conversation=number < conversations) for number in range(3)]
    pool = TextPool(prompts)
    base = pool.corpus([pool.add(number, [1, 2]) for number in range(3)], 8, bos=False)
    request = SimpleNamespace(tokens=2, text=None)
    told = " ".join(
        one.text for one in not_tested(cast("Found", SimpleNamespace(base=base, prompts=prompts, request=request)))
    )
    assert said in told
    assert ("every prompt" in told) == bool(said)
    assert "what was scored was written by the two models" in told
    for wrong in ("scored whole", "assistant says", "the text was scored"):
        assert wrong not in told


def test_a_cut_that_every_position_agrees_on_has_the_width_of_so_few_prompts() -> None:
    """Infinite at every position after eight prompts, or at none: the exact interval of 8 of 8, and of 0 of 8."""
    prompts = [prompt(str(number), conversation=False) for number in range(8)]
    pool = TextPool(prompts)
    base = pool.corpus([pool.add(number, [1, 2, 3]) for number in range(8)], 8, bos=False)
    yes, no = np.ones(24, dtype=bool), np.zeros(24, dtype=bool)

    def shape(kl: float, differ: np.ndarray) -> ShapedDistances:
        return ShapedDistances(np.full(24, kl), np.full(24, 0.25), np.zeros(24), yes, differ, yes)

    shapings = [TopK(name="top_k"), TopK(name="top_k", k=2), TemperatureSampling(name="temperature")]
    shapes = [shape(np.inf, yes), shape(0.1, no), shape(0.1, no)]
    request = SimpleNamespace(shapings=shapings)
    found = SimpleNamespace(base=base, request=request, measured=[SimpleNamespace(shapes=shapes)])
    kinds = Classified({one.name: no for one in CLASSES}, np.ones(24, dtype=np.int64))
    every, none, warm = distances(cast("Found", found), 0, kinds)
    most = stats.binomtest(0, 8).proportion_ci(0.95, "exact").high
    assert every.infinite.ci == pytest.approx((1 - most, 1))
    assert every.top1.ci == pytest.approx((1 - most, 1))
    assert none.infinite.ci == none.lost.ci == none.supports_differ.ci == pytest.approx((0, most))
    assert (warm.infinite.mean, warm.infinite.ci) == (0, None)  # temperature cuts nothing off, whatever the text
    assert (warm.lost.ci, warm.supports_differ.ci) == (None, None)


class StopError(Exception):
    pass


def test_distances_can_be_stopped_at_every_class_of_every_cut() -> None:
    """With a thousand prompts each takes seconds."""
    prompts = [prompt(str(number), conversation=False) for number in range(2)]
    pool = TextPool(prompts)
    base = pool.corpus([pool.add(number, [1, 2]) for number in range(2)], 8, bos=False)
    yes = np.ones(4, dtype=bool)
    shape = ShapedDistances(np.ones(4), np.ones(4), np.zeros(4), yes, yes, yes)
    measured = [SimpleNamespace(shapes=[shape] * 2)] * 2
    found = SimpleNamespace(base=base, measured=measured, request=SimpleNamespace(shapings=[TopK(name="top_k")] * 2))
    masks = {one.name: np.array([True, False, True, False]) for one in CLASSES}
    calls = 0

    def stop_after(most: int) -> Callable[[], None]:
        def check() -> None:
            nonlocal calls
            calls += 1
            if calls > most:
                raise StopError

        return check

    kinds = Classified(masks, np.ones(4, dtype=np.int64))
    rows = distances(cast("Found", found), 0, kinds, check_cancelled=stop_after(1000))
    assert calls == len(rows) * (1 + len(CLASSES) + 1)
    calls = 0
    with pytest.raises(StopError):
        distances(cast("Found", found), 0, kinds, check_cancelled=stop_after(3))
    assert calls == 4


def model(alias: str, scheme: str) -> SimpleNamespace:
    quantization = {"quant_method": "compressed-tensors"} if scheme.startswith("W") else None
    return SimpleNamespace(alias=alias, info=SimpleNamespace(scheme=scheme, quantization=quantization))


def warned(
    *making: str,
    prompts: int = 32,
    alike: int = 0,
    nonfinite: int = 0,
    length: int = 40,
    reference: str = "bf16",
    candidates: str = "bf16",
) -> list[str]:
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
        engine=SimpleNamespace(dtype="bfloat16"),
        written=[SimpleNamespace(texts={"greedy": texts})],
    )
    cells = [SimpleNamespace(nonfinite_positions=nonfinite)]
    return _warnings(cast("Found", found), cast("list[Cell]", cells))


def test_a_whole_run_needs_no_word() -> None:
    assert warned() == []


def test_what_was_warned_of_in_making_a_candidate_is_told_of_it() -> None:
    assert warned("too little text") == ["Of making the candidate by quantize.gptq: too little text"]
    two = warned("too little text", candidates="bf16 bf16")
    assert two == ["Of making candidate 2 by quantize.gptq: too little text"]


def test_fewer_prompts_than_asked_for_are_counted() -> None:
    assert warned(prompts=8) == ["The text has 8 documents: 8 prompts instead of 32."]
    one, alone = warned(prompts=1)
    assert one == "The text has 1 document: 1 prompt instead of 32."
    assert alone == "Only 1 prompt: intervals speak of this prompt alone."
    assert warned(prompts=5)[1] == "Only 5 prompts: intervals speak of these prompts alone."


def test_prompts_that_are_the_same_are_told() -> None:
    assert warned(alike=1)[0].startswith("1 of 32 prompts repeats an earlier one. Intervals take prompts for indep")
    assert warned(alike=3)[0].startswith("3 of 32 prompts repeat an earlier one.")


def test_what_spoils_the_numbers_is_told() -> None:
    (nonfinite,) = warned(nonfinite=7)
    assert "had non-finite logits and are left out of every mean: 7 in all cells together" in nonfinite
    (kernels,) = warned(candidates="W4A16")
    assert kernels.startswith("w4a16 runs on other kernels than the reference (W4A16): a part of its KL is theirs")
    (packed,) = warned(reference="W8A8", candidates="bf16 bf16")
    assert packed.startswith("The reference is packed (W8A8) and the candidate is not")
    wide, narrow = warned(reference="f32", candidates="f16 bf16")
    assert wide.startswith("Weights of f16 are stored as float16 and run in bfloat16")
    assert narrow.startswith("Weights of base are stored as float32 and run in bfloat16")
    assert warned(length=8) == []
    (short,) = warned(length=7)
    assert short.startswith("Texts of the reference are shorter than eight tokens on average")
