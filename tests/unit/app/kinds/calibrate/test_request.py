"""Which compositions a calibrate job takes."""

import pytest
from pydantic import ValidationError

from app.kinds.calibrate.request import CalibrateRequest

BODY = {"kind": "calibrate", "reference": {"model": "a"}, "candidate": {"model": "b"}}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"calibrators": ["blocks+blocks"]}, "a kind twice"),
        ({"calibrators": ["lowrank+lowrank"]}, "a kind twice"),
    ],
)
def test_a_composition_that_cannot_be_fitted_is_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        CalibrateRequest.model_validate(BODY | changes)
