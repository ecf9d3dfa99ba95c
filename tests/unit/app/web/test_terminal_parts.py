import pytest

from app.kinds.compare.report import CompareReport
from app.web.terminal_parts import capitals, gauge
from tests.support.reports import variants

VARIANTS = variants()


def drawn(name, width):
    report = CompareReport.model_validate(VARIANTS[name])
    return gauge(report, report.decision.excess_kl.mean, width)


@pytest.mark.parametrize("width", [60, 78, 98])
def test_the_gauge_puts_the_excess_between_its_thresholds(width):
    names, axis, labels = drawn("severe", width)
    assert len(names) == len(axis) == len(labels) == width
    crossings = [place for place, sign in enumerate(axis) if sign == "┼"]
    assert len(crossings) == 4
    assert crossings[2] < axis.index("├") < axis.index("●") < axis.index("┤") < crossings[3]
    assert "SEVERE" in names
    assert "mild" in names


def test_an_excess_under_the_gauge_points_off_it():
    _, axis, _ = drawn("tiny", 78)
    assert axis.startswith("◂")


@pytest.mark.parametrize(
    ("text", "names", "shown"),
    [
        ("Worst: layers.1.mlp.down_proj", ["layers.1", "layers.1.mlp.down_proj"], "WORST: layers.1.mlp.down_proj"),
        ("Worst: the layers that both have", ["layers.1"], "WORST: THE LAYERS THAT BOTH HAVE"),
        (
            "k_bits: mild from 16 down to 5, nowhere above",
            ["k_bits", "5"],
            "k_bits: MILD FROM 16 DOWN TO 5, NOWHERE ABOVE",
        ),
        ("No value of p stays mild", ["p"], "NO VALUE OF p STAYS MILD"),
        ("Mild from dtype fp8_e4m3 to fp8", ["dtype", "fp8", "fp8_e4m3"], "MILD FROM dtype fp8_e4m3 TO fp8"),
        ("Nothing helps", [], "NOTHING HELPS"),
    ],
)
def test_a_heading_in_capitals_keeps_names_as_they_are_copied(text, names, shown):
    assert capitals(text, names) == shown
