"""The page of measured recipes says what its CSV says."""

from pathlib import Path

import pytest

from tests.bench import mitigation_page, rows
from tests.bench.mitigation_cases import CASES, SECONDS
from tests.bench.mitigation_page import PAGE, RESULTS, page, read


def test_the_page_is_that_of_the_committed_numbers() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read())


def test_numbers_of_another_recipe_than_the_cases_are_told_as_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("mitigation,wanda_50,recipe,"))
    other = tmp_path / "mitigation.csv"
    monkeypatch.setattr(mitigation_page, "RESULTS", other)
    for line in ("mitigation,wanda_50,recipe,1,mark", ""):
        other.write_text("\n".join(filter(None, [*lines[:at], line, *lines[at + 1 :]])) + "\n", encoding="utf-8")
        assert set(read()) == set(CASES) - {"wanda_50"} - absent()
        assert "- `prune.wanda:sparsity=0.5`\n" in page(read()).partition("## Not measured")[2]


def absent() -> set[str]:
    """Cases without rows."""
    return set(CASES) - {row.case for row in rows.read(RESULTS)}


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


def test_a_bar_of_a_measured_case_that_has_no_ratio_is_told_as_not_measured() -> None:
    kl = {f"kl_{text}{end}": 0.5 for text in ("wiki", "unfitted") for end in ("", "_low", "_high")}
    told = page({"wanda_50_128": {"bits_per_weight": 16.0, **kl}}).partition("## Not measured")[2]
    wanda = "`prune.wanda:sparsity=0.5,calibration_windows=128,calibration_window=512`"
    assert f"- {wanda} against `prune.magnitude:sparsity=0.5`, WikiText-2, ≤ 1\n" in told
    assert f"- {wanda}\n" not in told


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


def test_seconds_beyond_what_may_be_waited_for_are_called_missed() -> None:
    assert set(SECONDS) <= set(CASES)
    kl = {f"kl_{text}{end}": 0.5 for text in ("wiki", "unfitted") for end in ("", "_low", "_high")}
    of = {"bits_per_weight": 16.0, **kl}
    told = page(
        {"wanda_50": of | {"seconds": 90.4}, "ria_50": of | {"seconds": 89.6}, "wanda_2:4": of | {"seconds": 999}}
    )
    seconds = told.partition("## Seconds")[2].partition("## ")[0]
    assert "| `prune.wanda:sparsity=0.5` | 90.4 | ≤ 90 | **missed** |" in seconds
    assert "| `prune.ria:sparsity=0.5` | 89.6 | ≤ 90 | met |" in seconds
    assert "2:4" not in seconds
