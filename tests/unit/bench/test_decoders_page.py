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


def test_a_sentence_names_those_on_either_side_of_1_and_counts_the_rest() -> None:
    told = page(rows(greedy=(1.1, 1.2, 1.3), beam=(0.7, 0.8, 0.9), fsd=(0.7, 0.8, 1.2)))
    assert (
        "The KL factor is above 1 with its whole interval for 1 (`greedy`), below 1 for 1 (`beam`); 11 of 13 are "
        "open. It goes from 0.500 (`diverse_beam`) to 1.20 (`greedy`)."
    ) in told
    assert "The token factor is above 1 with its whole interval for none, below 1 for none; 13 of 13" in told


def test_a_median_or_a_limit_that_the_csv_lacks_lies_beyond_the_end() -> None:
    assert "| `greedy` | 50.0 | beyond the end | 0.500 |" in page(rows())
    places = (("first_different", 40.0), ("first_different_low", 9.0))
    half = [*rows(), *(Row("decoders", "greedy", metric, at, "") for metric, at in places)]
    assert "| `greedy` | 50.0 | 40 [9, beyond the end] |" in page(half)


def test_decoders_that_were_not_measured_stand_in_no_table_and_are_named() -> None:
    told = page([row for row in rows() if row.case not in ("beam", "eta")])
    assert "| `beam` |" not in told
    assert told.endswith("Not measured yet: `beam`, `eta`.")
    assert "11 of 11 are open" in told
    assert "Not measured" not in page(rows())
