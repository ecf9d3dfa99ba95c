"""`hemostat sweep`: what it sends, and the command that a report gives to repeat it."""

import pytest

from app.commands.knobs import turn
from app.contracts.errors import HemostatError
from tests.support.commands import refused


def test_a_knob_is_a_list_or_a_range():
    for knob, written in (
        ("bits=8,6,4", [8, 6, 4]),
        ("pattern=2:4,1:4", ["2:4", "1:4"]),
        ("layers=0+1,2", [[0, 1], 2]),
        ("rank=64..8:3", {"from": 64, "to": 8, "points": 3}),
    ):
        steps = [{"type": "x"}]
        turn(steps, knob)
        assert steps[0][knob.partition("=")[0]] == {"sweep": written}


def test_a_knob_that_is_none_is_refused():
    one, two = [{"type": "x"}], [{"type": "x"}, {"type": "y"}]
    for steps, knob, words in (
        (one, "bits", []),
        (one, "=3", []),
        (one, "a.bits=1,2", []),
        (one, "².bits=1,2", []),
        (one, "7.bits=1,2", ["no step 7", "1 step"]),
        ([], "7.bits=1,2", ["no step 7", "0 steps"]),
        (two, "0.bits=1,2", ["no step 0", "2 steps"]),
        (two, "7.bits=1,2", ["no step 7", "2 steps"]),
        (two, "bits=1,2", ["--knob 1.bits=1,2 (x)", "--knob 2.bits=1,2 (y)"]),
        (one, "rank=a..b:3", []),
        *(
            (one, f"sparsity={values}", words)
            for values, words in (
                ("0.1..0.7", ["points"]),
                ("0.1..0.7:", ["points"]),
                ("1..-5e1", ["points"]),
                ("0.1..0.7:many", ["points is many"]),
                ("0.1..0.7:1", ["points is 1", "2 to 200"]),
                ("0.1..0.7:201", ["points is 201", "2 to 200"]),
                ("0.3..0.3:4", ["begins where it ends"]),
                ("0.3", ["one value"]),
                ("", ["no value"]),
            )
        ),
    ):
        with pytest.raises(HemostatError, match="--knob") as found:
            turn(steps, knob)
        told = f"{found.value.detail} {found.value.hint}"
        assert [word for word in words if word not in told] == []
        assert "{" not in found.value.hint


def test_another_number_of_knobs_than_the_kind_turns_is_refused_before_the_service_is_asked():
    both = "--recipe prune.wanda --recipe quantize.rtn"
    for line, words in (
        ("surface -r a --recipe quantize.rtn --knob bits=8,4 --knob 1.bits=3,2", ["--knob 1.bits=3,2", "step 1"]),
        ("sweep -r a --recipe prune.wanda", ["1 knob", "not 0", "--knob sparsity="]),
        (f"surface -r a {both} --knob 1.sparsity=0.1,0.2", ["2 knobs", "not 1"]),
        (f"sweep -r a {both} --knob 1.sparsity=0.1,0.2 --knob 2.bits=8,6", ["1 knob", "not 2", "surface"]),
    ):
        error = refused(line)
        told = f"{error.detail} {error.hint}"
        assert [word for word in words if word not in told] == []
