"""`hemostat surface`: its request, and what is refused before anything runs."""

import json

import pytest

from app.contracts.errors import HemostatError
from app.jobs.parsing import parse_submission
from tests.support.commands import refused

BASE = "surface -r m --recipe prune.magnitude:sparsity=0.5 --recipe quantize.rtn:bits=8"
KNOBS = "--knob 1.sparsity=0.2,0.5 --knob 2.bits=8,4,3"


def test_a_level_that_no_loss_has_is_told_with_those_that_there_are(sent):
    for contour in ("kl", "kl=much"):
        assert "--contour" in refused(f"{BASE} {KNOBS} --contour {contour}").detail
    for contour in ("perplexity_ratio=0.9", "perplexity_ratio=1", "perplexity=1"):
        with pytest.raises(HemostatError) as caught:
            parse_submission(json.dumps(sent(f"{BASE} {KNOBS} --contour {contour}")).encode())
        assert caught.value.pointer == "/contour"
        assert "above 1" in caught.value.hint
