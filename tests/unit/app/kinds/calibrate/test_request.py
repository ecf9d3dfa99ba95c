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
        ({"calibrators": ["lowrank", "blocks+confidence"], "deployment": "d"}, "cannot measure blocks\\+confidence"),
    ],
)
def test_a_composition_that_cannot_be_fitted_or_measured_is_refused(changes, why):
    with pytest.raises(ValidationError, match=why):
        CalibrateRequest.model_validate(BODY | changes)


def test_blocks_without_a_deployment_and_others_with_one_are_taken():
    for changes in ({"calibrators": ["blocks+lowrank+confidence"]}, {"calibrators": ["lowrank"], "deployment": "d"}):
        CalibrateRequest.model_validate(BODY | changes)
