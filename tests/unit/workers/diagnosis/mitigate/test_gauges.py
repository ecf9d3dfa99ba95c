"""What a mitigate job tells of its result in metrics."""

from math import isnan
from types import SimpleNamespace

from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest
from app.models.recipes import recipe_fingerprint
from tests.support.mitigate_reports import RTN, mitigate_report
from workers.diagnosis.mitigate.job import tell
from workers.telemetry import Telemetry

REQUEST = MitigateRequest.model_validate(
    {"kind": "mitigate", "reference": {"model": "a"}, "candidate": {"model": "b", "recipe": [RTN]}}
)


NAMES = ("best_saved_nats", "saved_nats", "saved_low_nats", "saved_high_nats", "helped")


def told(data, *names):
    telemetry = Telemetry()
    report = MitigateReport.model_validate(data)
    tell(report, REQUEST, SimpleNamespace(observe=telemetry.observe))
    labels = report.labels() | {"recipe": (recipe_fingerprint(REQUEST.candidate.recipe) or "")[:12]}
    return {name: telemetry.value(f"mitigate_{name}", **labels) for name in names or NAMES}


def test_what_was_saved_is_the_reports():
    data = mitigate_report()
    found = told(data)
    saved = data["saved"]
    assert (found["saved_nats"], found["helped"]) == (saved["mean"], 1.0)
    assert [found["saved_low_nats"], found["saved_high_nats"]] == list(saved["ci"])
    full = [trial["saved"]["mean"] for trial in data["trials"] if trial["rung"] == "full" and trial["saved"]]
    assert found["best_saved_nats"] == max(full)


def test_what_is_not_known_is_nan_and_does_not_stay_from_before():
    data = mitigate_report(helped=False)
    data |= {"saved": None, "trials": [trial for trial in data["trials"] if trial["rung"] == "cheap"]}
    found = told(data)
    assert found.pop("helped") == 0.0
    assert all(value is not None and isnan(value) for value in found.values())


def test_when_it_ended_stands_beside_what_was_saved(monkeypatch):
    monkeypatch.setattr("workers.diagnosis.mitigate.job.time.time", lambda: 1_750_000_000.5)
    assert told(mitigate_report(), "finished_timestamp_seconds") == {"finished_timestamp_seconds": 1_750_000_000.5}
