"""What docs/results/decoders.md says was measured is what the bench of decoders wrote."""

import pytest

from app.contracts.decoding import DECODERS
from tests.bench.decoders_page import RESULTS, page
from tests.bench.rows import Row, read

PAGE = (RESULTS.parents[2] / "docs" / "results" / "decoders.md").read_text(encoding="utf-8")
METRICS = ("parted", "shared_prefix", "kl_reference_both", "kl_candidate_both", "kl_factor", "token_factor")
EDITS = tuple(f"edit_distance_{length}" for length in (16, 32, 64, 128))
PAIRS = tuple(f"{metric}_{whose}" for metric in ("repetition", "entropy") for whose in ("reference", "candidate"))


def rows(**factors: tuple[float, ...]) -> list[Row]:
    """Everything one half, with no interval but those of the KL factors of these decoders: low, value, high."""
    names = ("prompts", *METRICS, *EDITS, *PAIRS, "seconds")
    found = {(decoder, metric): 0.5 for decoder in DECODERS for metric in names}
    for decoder, (low, value, high) in factors.items():
        found |= {(decoder, f"kl_factor{end}"): one for end, one in (("_low", low), ("", value), ("_high", high))}
    return [Row("decoders", *key, value, "") for key, value in found.items()]


def test_the_page_has_the_numbers_of_the_bench() -> None:
    wanted = page(read(RESULTS))
    assert wanted in PAGE, f"docs/results/decoders.md should have:\n{wanted}"


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        ((1.01, 1.5, 2.0), "1.50 [1.01, 2.00] ↑ |"),
        ((0.5, 0.75, 0.99), "0.750 [0.500, 0.990] ↓ |"),
        ((0.9, 1.0, 1.1), "1.00 [0.900, 1.10] |"),
    ],
)
def test_an_arrow_stands_where_the_whole_interval_is_on_one_side_of_1(factor: tuple[float, ...], told: str) -> None:
    line = next(line for line in page(rows(greedy=factor)).splitlines()[16:] if line.startswith("| `greedy`"))
    assert told in line


def test_a_median_or_a_limit_that_the_csv_lacks_lies_beyond_the_end() -> None:
    assert "| `greedy` | 50.0 | beyond the end | 0.500 |" in page(rows())
    places = (("first_different", 40.0), ("first_different_low", 9.0))
    half = [*rows(), *(Row("decoders", "greedy", metric, at, "") for metric, at in places)]
    assert "| `greedy` | 50.0 | 40 [9, beyond the end] |" in page(half)
