"""The record's form, without Redis: what is written is read back."""

import json

from app.contracts.deployment import CalibrationMode, DeploymentPatch, DeploymentRequest
from app.deployments.record import UNMODIFIED, patch_fields, read_deployment, request_fields

REQUEST = {"name": "a", "model": {"model": "m"}, "reference": {"model": "m"}}
VERSION = "cal-" + "1" * 16


def read(request):
    times = {"created_at": "1.5", "updated_at": "2.5", "events": "7", "promotions": "0", "rollbacks": "0"}
    made = read_deployment(request_fields("dep_x", request) | times)
    return made.active_version, made.previous_version, made.activated_at is not None


def test_the_version_that_is_asked_for_is_served_from_the_start():
    assert read(DeploymentRequest.model_validate(REQUEST | {"version": VERSION})) == (VERSION, None, True)
    assert read(DeploymentRequest.model_validate(REQUEST)) == ("identity", None, False)


def test_with_calibration_off_it_waits():
    off = DeploymentRequest.model_validate(REQUEST | {"version": VERSION, "calibration": CalibrationMode.OFF})
    assert read(off) == ("identity", VERSION, False)


def test_a_model_that_is_its_own_reference_says_that_there_is_nothing_to_fit():
    def reason(**changes):
        fields = request_fields("dep_x", DeploymentRequest.model_validate(REQUEST | changes))
        return read_deployment(fields | {"created_at": "1", "updated_at": "1"}).fit_reason

    assert reason() == UNMODIFIED
    assert reason(calibration="off") == "calibration is off"
    assert reason(version=VERSION) == ""
    assert reason(model={"model": "other"}) == ""
    assert reason(model={"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 4}]}) == ""


def test_a_patch_writes_what_it_names_and_null_for_a_threshold_alone():
    patch = DeploymentPatch.model_validate({"replicas": 2, "alpha": None, "drift_threshold": None})
    assert patch_fields(patch) == {"replicas": "2", "drift_threshold": "null"}


def test_sampling_is_replaced_whole_and_the_same_is_written_alike():
    made = DeploymentRequest.model_validate(REQUEST | {"sampling": {"temperature": 0.5}})
    same = DeploymentPatch.model_validate({"sampling": {"temperature": 0.5}})
    assert patch_fields(same) == {"sampling": request_fields("dep_x", made)["sampling"]}
    none = json.loads(patch_fields(DeploymentPatch.model_validate({"sampling": {}}))["sampling"])
    assert set(none.values()) == {None}
    assert patch_fields(DeploymentPatch.model_validate({"sampling": None, "replicas": 1})) == {"replicas": "1"}


def test_a_record_of_before_has_no_sampling_of_its_own():
    fields = request_fields("dep_x", DeploymentRequest.model_validate(REQUEST)) | {"created_at": "1", "updated_at": "1"}
    del fields["sampling"]
    assert read_deployment(fields).sampling.model_dump(exclude_none=True) == {}
