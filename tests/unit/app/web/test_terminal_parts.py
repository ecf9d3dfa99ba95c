import pytest

from app.web.terminal_parts import capitals


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
