import pytest

from app.reports import format as fmt
from workers.analysis.numerals import MINUS, counted, numeral


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-5.34, "+.1f", "\u22125.3"),
        (-0.04, "+.1f", "0.0"),
        (-4096.0, ".3g", "\u22124,100"),
        (-1.25e-6, "+.3g", "\u22121.25×10⁻⁶"),
        (1.0985, "#.3g", "1.10"),
    ],
)
def test_a_number_has_the_sign_of_the_tables_and_no_exponent_of_python(value: float, form: str, text: str) -> None:
    assert numeral(value, form) == text
    assert fmt.MINUS == MINUS


def test_a_count_has_its_noun_as_on_the_page() -> None:
    assert all(counted(number, "document") == fmt.counted(number, "document") for number in (0, 1, 2, 1234))
