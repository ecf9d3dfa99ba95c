"""`hemostat mitigate`: what it sends, and the command that a report gives to repeat it."""

import shlex

from typer.testing import CliRunner

from app.cli import mitigate as command
from app.cli.main import app
from app.cli.output import Exit
from app.contracts.mitigate_report import MitigateReport
from app.contracts.requests.mitigate import MitigateRequest
from app.web.reproduce import reproduction
from tests.support.mitigate_reports import mitigate_variants


def sent(monkeypatch, arguments):
    found = {}

    def measure(request, configured, verdict, **_):
        found.update(request=request, verdict=verdict)

    monkeypatch.setattr(command, "measure", measure)
    done = CliRunner().invoke(app, ["mitigate", *arguments])
    assert done.exit_code == 0, done.output
    return found


def test_options_become_a_request_that_the_service_takes(monkeypatch):
    found = sent(
        monkeypatch,
        shlex.split(
            "-r a -c b --recipe quantize.rtn:bits=3 --bytes 1000 --bits 4.5 --added-latency 0.1 --treatment protect "
            "--treatment repair.lowrank --trials 5 --text shipped:20 --calibration calibration:8 --checkpoint "
            "--store-text"
        ),
    )
    request = MitigateRequest.model_validate(found["request"])
    assert request.budget.model_dump() == {"bytes": 1000, "bits_per_weight": 4.5, "added_latency": 0.1}
    assert request.treatments == ("protect", "repair.lowrank")
    assert (request.trials, request.export, request.store_text) == (5, "checkpoint", True)
    assert found["verdict"]({"helped": True}) == Exit.PASS
    assert found["verdict"]({"helped": False}) == Exit.FAIL


def test_the_command_of_a_report_asks_for_the_same(monkeypatch):
    report = MitigateReport.model_validate(mitigate_variants()["helped"])
    line = reproduction(report).cli
    assert line is not None
    request = MitigateRequest.model_validate(sent(monkeypatch, shlex.split(line.replace("\\\n", " "))[2:])["request"])
    assert request == MitigateRequest.model_validate(report.request)
