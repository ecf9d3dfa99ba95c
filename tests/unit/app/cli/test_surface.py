"""`hemostat surface`: its request, and what is refused before anything runs."""

import json

import pytest

from app.contracts.errors import HemostatError
from app.jobs.parsing import parse_submission
from tests.support.commands import refused

BASE = "surface -r m --recipe prune.magnitude:sparsity=0.5 --recipe quantize.rtn:bits=8"
KNOBS = "--knob 0.sparsity=0.2,0.5 --knob 1.bits=8,4,3"


def test_knobs_are_written_into_their_steps(sent):
    options = "--contour perplexity_ratio=1.1 --both-orders --storage dense --margin 0.02"
    request = sent(f"{BASE} {KNOBS} {options}")
    steps = request["candidate"]["recipe"]
    assert steps[0]["sparsity"] == {"sweep": [0.2, 0.5]}
    assert steps[1]["bits"] == {"sweep": [8, 4, 3]}
    parsed = parse_submission(json.dumps(request).encode())
    assert [knob.values for knob in parsed.knobs] == [(0.2, 0.5), (8, 4, 3)]
    assert (parsed.orders, parsed.storage, parsed.level) == ("both", "dense", 1.1)
    assert parsed.additive_margin == 0.02
    assert parsed.planned == 3 * 4 + 6


def test_a_level_that_no_loss_has_is_told_with_those_that_there_are(sent):
    for contour in ("kl", "kl=much"):
        assert "--contour" in refused(f"{BASE} {KNOBS} --contour {contour}").detail
    for contour in ("perplexity_ratio=0.9", "perplexity_ratio=1", "perplexity=1"):
        with pytest.raises(HemostatError) as caught:
            parse_submission(json.dumps(sent(f"{BASE} {KNOBS} --contour {contour}")).encode())
        assert caught.value.pointer == "/contour"
        assert "above 1" in caught.value.hint
