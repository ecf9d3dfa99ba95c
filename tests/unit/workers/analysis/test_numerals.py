import pytest

from app.reports import format as fmt
from workers.analysis.numerals import MINUS, counted, numeral


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-5.34, "+.1f", "\u22125.3"),
        (5.34, "+.1f", "+5.3"),
        (-0.04, "+.1f", "0.0"),
        (-0.0, ".3g", "0"),
        (-0.05, "+.1f", "\u22120.1"),
        (0.5, ".3g", "0.5"),
        (float("-inf"), ".3g", "\u2212inf"),
    ],
)
def test_a_number_has_the_sign_of_the_tables(value: float, form: str, text: str) -> None:
    assert numeral(value, form) == text
    assert fmt.MINUS == MINUS


@pytest.mark.parametrize(
    ("value", "form", "told"),
    [
        (1234.5, ".3g", "1,230"),
        (-4096.0, ".3g", "−4,100"),
        (1234.5, "+.3g", "+1,230"),
        (1.0686e13, ".3g", "1.07×10¹³"),
        (6e-7, ".3g", "6×10⁻⁷"),
        (-1.25e-6, "+.3g", "−1.25×10⁻⁶"),
        (5e-5, ".2g", "5×10⁻⁵"),
        (1.0985, "#.3g", "1.10"),
        (100.0, "#.3g", "100"),
    ],
)
def test_no_number_of_a_sentence_is_written_as_python_writes_exponents(value: float, form: str, told: str) -> None:
    assert numeral(value, form) == told


@pytest.mark.parametrize("number", [0, 1, 2, 1234])
def test_a_count_has_its_noun_as_on_the_page(number: int) -> None:
    assert counted(number, "document") == fmt.counted(number, "document")
