"""`hemostat diff`: reports on disk and of a service, JSON for programs, tables for people, refusals."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import app
from tests.support.mitigate_reports import mitigate_variants
from tests.support.token_files import DOCUMENTS, LENGTH, values, write_job

RNG = np.random.default_rng(3)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)
JOB = "diag_01M89D9HJWGEE9A2EB6NKQX32W"


def run(*arguments, width=140):
    result = CliRunner().invoke(app, ["diff", *map(str, arguments)], env={"COLUMNS": str(width)})
    return result.exit_code, result.output


def refused(*arguments, ends=2):
    status, output = run(*arguments, "--json")
    assert status == ends
    found: dict[str, Any] = json.loads(output)["error"]
    return found


@pytest.fixture
def folders(tmp_path):
    scales = {"one": 1.0, "two": 0.8, "three": 0.8001}
    return [
        write_job(tmp_path / name, values(scale * HARD), job=f"diag_{name}", candidate={"model": name})
        for name, scale in scales.items()
    ]


def test_json_is_the_answer_and_nothing_else(folders):
    status, output = run(*folders[:2], "--json")
    found = json.loads(output)
    assert status == 0
    assert found["schema"] == "hemostat.diff/1"
    [kl] = [row for row in found["pairs"][0]["differences"] if row["measure"] == "kl"]
    assert kl["difference"]["mean"] == pytest.approx(-0.2 * HARD.mean())
    assert kl["verdict"] == "better"


def test_details_have_every_slice(folders):
    [pair] = json.loads(run(*folders[:2], "--json")[1])["pairs"]
    status, details = run(*folders[:2], "--details")
    assert status == 0
    for row in pair["domains"]:
        assert any(line.startswith(row["domain"]) and f" {row['tokens']:,} " in line for line in details.splitlines())


def test_a_report_file_stands_for_its_folder(folders):
    assert run(folders[0] / "report.json", folders[1])[0] == 0


def test_reports_of_other_protocols_are_refused_unless_asked_for(folders, tmp_path):
    odd = write_job(tmp_path / "odd", values(HARD), job="diag_odd", dtype="float32", engine="other 1.0")
    error = refused(folders[0], odd)
    assert error["code"] == "reports_not_comparable"
    assert "dtype: a bfloat16, b float32" in error["detail"]
    assert "engine: a " in error["detail"]
    status, output = run(folders[0], odd, "--anyway")
    assert status == 0
    assert "NOT COMPARABLE: dtype, engine differ" in " ".join(output.split())


def test_bad_arguments_are_told(folders, tmp_path):
    one = folders[0]
    same = write_job(tmp_path / "copy", values(HARD), job="diag_one")
    other = tmp_path / "mitigate.json"
    other.write_text(json.dumps(mitigate_variants()["helped"]))
    (folders[2] / "report.json").write_text("{")
    for arguments, part in (
        ([one], "two reports"),
        ([one, folders[1], "--by", "bleu"], "bleu"),
        ([one, one], str(one)),
        ([one, same], "diag_one"),
        ([one, folders[2]], "JSON"),
        ([one, other], "mitigate"),
        # A folder that is not there is asked of no service.
        ([one, one / "gone", "--url", "http://127.0.0.1:9"], str(one / "gone")),
    ):
        assert part in refused(*arguments)["detail"]
    (folders[1] / "tokens.parquet").unlink()
    assert refused(one, folders[1])["code"] == "artifact_not_found"
    assert refused(one, "diag_nothing", "--url", "http://127.0.0.1:9", ends=4)["code"] == "unavailable"


@pytest.fixture
def service(folders):
    """Serves the first two folders' files as a service does."""
    files = {f"{JOB}{index}": folder for index, folder in enumerate(folders[:2])}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            job, _, what = self.path.removeprefix("/v1/diagnosis/jobs/").partition("/")
            file = files[job] / {"report": "report.json", "artifacts/tokens.parquet": "tokens.parquet"}[what]
            self.send_response(200)
            self.send_header("content-length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.write(file.read_bytes())

        def log_message(self, *_):
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_jobs_of_a_service_are_compared_by_their_ids(service):
    status, output = run(f"{JOB}0", f"{JOB}1", "--url", service, "--json")
    assert status == 0
    assert [row["job"] for row in json.loads(output)["ranking"]] == ["diag_two", "diag_one"]


def test_a_job_of_another_kind_is_named_and_its_values_not_asked_for(service, folders):
    (folders[1] / "report.json").write_text(json.dumps(mitigate_variants()["helped"]))
    (folders[1] / "tokens.parquet").unlink()
    error = refused(f"{JOB}0", f"{JOB}1", "--url", service)
    assert f"{JOB}1 is a report of kind mitigate" in error["detail"]
