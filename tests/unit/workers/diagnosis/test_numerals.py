import pytest

from app.web import format as fmt
from workers.diagnosis.numerals import MINUS, numeral


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (-5.34, "+.1f", "\u22125.3"),
        (5.34, "+.1f", "+5.3"),
        (-0.04, "+.1f", "0.0"),
        (-0.0, ".3g", "0"),
        (-0.05, "+.1f", "\u22120.1"),
        (-1.25e-6, ".3g", "\u22121.25e-06"),
        (0.5, ".3g", "0.5"),
        (float("-inf"), ".3g", "\u2212inf"),
    ],
)
def test_a_number_has_the_sign_of_the_tables(value: float, form: str, text: str) -> None:
    assert numeral(value, form) == text
    assert fmt.MINUS == MINUS
