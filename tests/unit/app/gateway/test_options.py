from typing import Any

import pytest

from app.gateway.errors import ApiError
from app.gateway.options import Options, take


@pytest.mark.parametrize(
    ("given", "options", "pinned"),
    [
        (None, Options(), None),
        ({}, Options(), None),
        ({"calibration": "auto"}, Options(), None),
        ({"calibration": "off"}, Options(calibration="off"), "identity"),
        ({"calibration": "identity"}, Options(calibration="off"), "identity"),
        ({"calibration": "cal-0123456789abcdef"}, Options(calibration="cal-0123456789abcdef"), "cal-0123456789abcdef"),
        ({"shadow": False, "verify": True}, Options(shadow=False, verify=True), None),
    ],
)
def test_what_can_be_asked(given, options, pinned):
    body = {"model": "m", "hemostat": given}
    assert take(body) == options
    assert body == {"model": "m"}
    assert options.pinned == pinned


def refused(body):
    with pytest.raises(ApiError) as caught:
        take(body)
    assert caught.value.status == 400
    return caught.value


def test_anything_else_is_refused_by_name():
    for given, param in (
        ("off", "hemostat"),
        ([], "hemostat"),
        ({"calibration": None}, "hemostat.calibration"),
        ({"calibration": True}, "hemostat.calibration"),
        ({"calibration": ["off"]}, "hemostat.calibration"),
        ({"calibration": "cal-0123456789ABCDEF"}, "hemostat.calibration"),
        ({"calibration": "cal-0123456789abcdef\n"}, "hemostat.calibration"),
        ({"calibrations": "off"}, "hemostat.calibrations"),
        ({"shadow": 0}, "hemostat.shadow"),
        ({"verify": "true"}, "hemostat.verify"),
    ):
        assert refused({"hemostat": given}).param == param
    assert "calibration" in refused({"hemostat": {"calibrate": "off"}}).hint


def test_a_misspelt_hemostat_is_refused_rather_than_ignored():
    for name in ("hemostst", "hemo_stat", "Hemostat", "HEMOSTAT", "hemostats", "hemosat", "haemostat", "hemotsat"):
        assert refused({"model": "m", name: {"calibration": "off"}}).param == name
    error = refused({"model": "m", "hemostat ": {"calibration": "off"}})
    assert error.param == "hemostat "
    assert "`hemostat`" in error.hint


def test_no_other_field_is_taken_for_it():
    others = ("messages", "metadata", "echo", "host", "template", "chat_template", "format", "seed", "user", "h", "")
    assert take(dict.fromkeys(others)) == Options()


def test_a_body_of_many_fields_is_refused_before_any_name_is_compared(monkeypatch):
    compared: list[str] = []
    monkeypatch.setattr("app.gateway.options._means_ours", compared.append)
    body: dict[str, Any] = {f"hemost{number}": 0 for number in range(256)}
    assert take(dict(body)) == Options()
    assert len(compared) == 256
    compared.clear()
    with pytest.raises(ApiError, match="The body has 257 fields; at most 256 are taken") as caught:
        take(body | {"model": "m"})
    assert caught.value.status == 400
    assert compared == []
