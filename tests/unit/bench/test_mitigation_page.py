"""The page of measured recipes says what its CSV says."""

import pytest

from tests.bench import rows
from tests.bench.mitigation_cases import CASES
from tests.bench.mitigation_page import RESULTS, page, read


def test_every_committed_number_is_of_the_recipe_that_its_case_has() -> None:
    assert {row.case for row in rows.read(RESULTS) if row.bench == "mitigation"} == set(read())


def test_a_missed_bar_is_called_missed_and_a_case_without_numbers_not_measured() -> None:
    kl = {f"kl_{text}{end}": 0.5 for text in ("wiki", "unfitted") for end in ("", "_low", "_high")}
    of: dict[str, float] = {"bits_per_weight": 4.3125, **kl}
    for bar, ratio in zip(CASES["dynamic_4"].bars, (0.4, 1.2, 0.9, 0.9, 0.9), strict=True):
        name = f"ratio_to_{bar.against}_{bar.text}"
        of |= {name: ratio, f"{name}_low": ratio, f"{name}_high": ratio}
        of |= {f"{name}_bar": bar.most, f"{name}_met": float(ratio <= bar.most)}
    text = page({"dynamic_4": of})
    bars = text.partition("## Bars")[2].partition("## Not measured")
    assert bars[0].count("| met |") == 4
    assert bars[0].count("**missed**") == 1
    assert "`quantize.dynamic:bits=4`, then" not in bars[0]
    assert "- `quantize.awq:bits=4`" in bars[2]
    assert "- `quantize.dynamic:bits=4`\n" not in bars[2]


def test_two_thirds_of_what_a_repair_removes_remain_on_other_text() -> None:
    """Removed there: 60 %; so 40 % have to be here, whatever share the first bar asks."""
    (_, bar) = CASES["repair_rtn_4_r64"].bars
    assert bar.text == "unfitted"
    assert abs(bar.limit(0.4) - 0.6) < 1e-12
    assert bar.limit(1.0) == 1.0
    assert bar.words() == "67 % of what is removed on WikiText-2"


def test_every_committed_verdict_follows_from_the_committed_ratios() -> None:
    for name, of in read().items():
        for bar in CASES[name].bars:
            ratio = f"ratio_to_{bar.against}_{bar.text}"
            if ratio in of:
                limit = bar.limit(of.get(f"ratio_to_{bar.against}_wiki", float("nan")))
                assert abs(of[f"{ratio}_bar"] - limit) < 2e-6, (name, ratio)
                assert bool(of[f"{ratio}_met"]) == (of[ratio] <= limit), (name, ratio)


def test_every_committed_ratio_is_that_of_the_committed_divergences() -> None:
    """Up to what making the other case anew on another processor changes; no verdict hangs on that."""
    found = read()
    ratios = 0
    for name, of in found.items():
        for bar in CASES[name].bars:
            ratio = f"ratio_to_{bar.against}_{bar.text}"
            if ratio in of and bar.against in found:
                base = found[bar.against]
                plain = {text: of[f"kl_{text}"] / base[f"kl_{text}"] for text in ("wiki", "unfitted")}
                assert of[ratio] == pytest.approx(plain[bar.text], rel=0.014), (name, ratio)
                assert bool(of[f"{ratio}_met"]) == (plain[bar.text] <= bar.limit(plain["wiki"])), (name, ratio)
                ratios += 1
    assert ratios > 40


def test_dynamic_scaling_is_held_against_methods_that_take_as_many_bits() -> None:
    """Codes, scales and zero points: all of it, of the weights and of the whole model."""
    found = read()
    held = [(name, bar.against) for name in found if name.startswith("dynamic_") for bar in CASES[name].bars]
    assert {"dynamic_4", "dynamic_3", "dynamic_w8a8", "dynamic_w4a8"} <= {name for name, _ in held}
    for name, other in held:
        for metric in ("bits_per_weight", "model_bytes"):
            assert found[name][metric] <= found[other][metric], (name, other, metric)


@pytest.mark.parametrize(("wound", "before"), [("rtn_4", 4 + 20 / 64), ("wanda_50", 16.0)])
@pytest.mark.parametrize("rank", [16, 64])
def test_repairs_have_the_mean_rank_that_their_bars_are_of(wound: str, before: float, rank: int) -> None:
    """By the shapes of the demo model's layers: q and o, k and v, gate and up, down. No further direction would fit."""
    shapes = [(576, 576)] * 2 + [(192, 576)] * 2 + [(1536, 576)] * 2 + [(576, 1536)]
    weights = sum(outputs * inputs for outputs, inputs in shapes)
    most = 16 * rank * sum(map(sum, shapes)) / weights
    for suffix in ("", "_closed"):
        taken = read()[f"repair_{wound}_r{rank}{suffix}"]["bits_per_weight"] - before
        assert most - 2e-4 < taken < most + 5e-5, suffix


@pytest.mark.parametrize("strength", ["50", "2:4"])
def test_gradient_pruning_is_held_against_as_many_zeros(strength: str) -> None:
    found = read()
    for name in (f"gradient_{strength}", f"gradient_{strength}_recovery"):
        for bar in CASES[name].bars:
            assert found[name]["zeros"] == pytest.approx(found[bar.against]["zeros"], abs=1e-5), (name, bar.against)
