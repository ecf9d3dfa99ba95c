"""`hemostat diff`: reports on disk and of a service, JSON for programs, tables for people, refusals."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.diff import MOST_SLICES
from app.cli.main import app
from tests.support.mitigate_reports import mitigate_variants
from tests.support.token_files import DOCUMENTS, LENGTH, values, write_job

RNG = np.random.default_rng(3)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)
JOB = "diag_01M89D9HJWGEE9A2EB6NKQX32W"


def run(*arguments: str | Path, width: int = 140) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diff", *map(str, arguments)], env={"COLUMNS": str(width)})
    return result.exit_code, result.output


def refused(*arguments: str | Path, ends: int = 2) -> dict[str, Any]:
    status, output = run(*arguments, "--json")
    assert status == ends
    found: dict[str, Any] = json.loads(output)["error"]
    return found


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    scales = {"one": 1.0, "two": 0.8, "three": 0.8001}
    return [
        write_job(tmp_path / name, values(scale * HARD), job=f"diag_{name}", candidate={"model": name})
        for name, scale in scales.items()
    ]


def test_json_is_the_answer_and_nothing_else(folders: list[Path]) -> None:
    status, output = run(*folders[:2], "--json")
    found = json.loads(output)
    assert status == 0
    assert found["schema"] == "hemostat.diff/1"
    [kl] = [row for row in found["pairs"][0]["differences"] if row["measure"] == "kl"]
    assert kl["difference"]["mean"] == pytest.approx(-0.2 * HARD.mean())
    assert kl["verdict"] == "better"


@pytest.mark.parametrize("width", [80, 140])
def test_people_read_ranks_differences_and_domains(folders: list[Path], width: int) -> None:
    status, output = run(*folders[:2], width=width)
    text = " ".join(output.split())
    assert status == 0
    assert "b is better than a in KL." in text
    assert "1,200 tokens of 30 documents, paired" in text
    assert "b − a, paired by token" in text
    assert "by domain" in text
    assert "Holm" in text


def test_people_read_differences_by_token_class_or_why_there_are_none(folders: list[Path], tmp_path: Path) -> None:
    flags = {"json_structure": np.arange(HARD.size) % 3 == 0, "template": np.zeros(HARD.size, dtype=bool)}
    new = [write_job(tmp_path / f"n{n}", values(n * HARD), job=f"diag_n{n}", classes=flags) for n in (2, 1)]
    status, output = run(*new)
    text = " ".join(output.split())
    assert status == 0
    assert "b − a by token class, KL(p‖q), nats" in text
    [line] = [line.strip() for line in output.splitlines() if line.strip().startswith("JSON structure")]
    assert line.endswith("b is better")
    assert "A token may be of several classes. Not among the compared positions: Chat template." in text
    status, output = run(new[0], folders[0])
    text = " ".join(output.split())
    assert status == 0
    assert "Token classes: Differences by token class are not told: the values by token of b have no class" in text
    [row] = json.loads(run(*new, "--json")[1])["pairs"][0]["token_classes"]
    assert (row["token_class"], row["title"], row["domain"]) == ("json_structure", "JSON structure", None)


def test_several_are_ranked_by_the_asked_measure(folders: list[Path]) -> None:
    status, output = run(*folders, "--by", "top1_agreement")
    text = " ".join(output.split())
    assert status == 0
    assert "Ranking by Top-1 agreement, share" in text
    assert "Every pair, Top-1 agreement, share" in text
    assert "Ties: b and c" in text


def test_of_several_the_slices_that_differ_for_sure_are_told_the_largest_first(tmp_path: Path) -> None:
    """A class where two candidates are equal at every position is in no line; nor is one that no report knows."""
    third = np.arange(HARD.size) % 3 == 0
    flags = {"json_structure": third, "number": ~third}
    factors = {"a": (1.0, 1.0), "b": (1.0, 0.5), "c": (1.0, 0.2)}
    jobs = [
        write_job(
            tmp_path / name,
            values(np.where(third, inside, outside) * HARD),
            job=f"diag_{name}",
            candidate={"model": name},
            classes=flags,
        )
        for name, (inside, outside) in factors.items()
    ]
    status, output = run(*jobs)
    assert status == 0
    lines = [" ".join(line.split()) for line in output.splitlines()]
    begin = lines.index("Where in the text a pair differs, KL(p‖q), nats")
    told = [line for line in lines[begin:] if " token class " in f" {line} "]
    outside = HARD[~third].mean()
    expected = [("c − a", -0.8), ("b − a", -0.5), ("c − b", -0.3)]
    rows = [line for line in told if line.startswith(tuple("abc"))]
    for line, (pair, factor) in zip(rows, expected, strict=True):
        assert line.startswith(f"{pair} token class number ")
        assert float(line.split()[6].replace("−", "-")) == pytest.approx(factor * outside, abs=0.005)
    assert not any("JSON structure" in line for line in told)
    assert "9 of 12 differences by pair and domain or token class are certain." in lines


def test_of_more_than_the_terminal_lists_the_largest_are_and_the_others_are_said_to_be_elsewhere(
    tmp_path: Path,
) -> None:
    """Of four candidates six pairs, each over three domains and a class; of any two the means lie a tenth apart."""
    flags = {"number": np.ones(HARD.size, dtype=bool)}
    jobs = [
        write_job(
            tmp_path / str(n), values((1 - n / 10) * HARD), job=f"diag_{n}", candidate={"model": str(n)}, classes=flags
        )
        for n in range(4)
    ]
    status, output = run(*jobs)
    pairs = json.loads(run(*jobs, "--json")[1])["pairs"]
    every = [row for pair in pairs for row in (*pair["domains"], *pair["token_classes"])]
    certain = sum(row["verdict"] in {"better", "worse"} for row in every)
    assert status == 0 and certain > MOST_SLICES
    told = " ".join(output.split())
    assert (
        f"{certain} of {len(every)} differences by pair and domain or token class are certain; the {MOST_SLICES} "
        "largest stand above, all are in the JSON and on the page."
    ) in told
    listed = output.split("Where in the text a pair differs")[1]
    assert (
        sum(" domain " in line or " token class " in line for line in listed.split("differences by")[0].splitlines())
        == MOST_SLICES
    )


def test_of_several_that_differ_nowhere_it_is_said(tmp_path: Path) -> None:
    noise = [np.random.default_rng(seed).normal(1, 1e-6, HARD.size) for seed in range(3)]
    jobs = [
        write_job(tmp_path / str(number), values(factor * HARD), job=f"diag_{number}", candidate={"model": str(number)})
        for number, factor in enumerate(noise)
    ]
    status, output = run(*jobs)
    assert status == 0
    assert "By domain and token class: no difference of a pair is shown." in output
    assert "Where in the text" not in output


def test_a_report_file_stands_for_its_folder(folders: list[Path]) -> None:
    assert run(folders[0] / "report.json", folders[1])[0] == 0


def test_reports_of_other_protocols_are_refused_unless_asked_for(folders: list[Path], tmp_path: Path) -> None:
    odd = write_job(tmp_path / "odd", values(HARD), job="diag_odd", dtype="float32", engine="other 1.0")
    error = refused(folders[0], odd)
    assert error["code"] == "reports_not_comparable"
    assert "dtype: a bfloat16, b float32" in error["detail"]
    assert "engine: a " in error["detail"]
    status, output = run(folders[0], odd, "--anyway")
    assert status == 0
    assert "NOT COMPARABLE: dtype, engine differ" in " ".join(output.split())


def test_bad_arguments_are_told_exactly(folders: list[Path], tmp_path: Path) -> None:
    one = folders[0]
    assert refused(one)["detail"] == "one report alone has no difference"
    assert "no measure" in refused(one, folders[1], "--by", "bleu")["detail"]
    assert f"{one} is given twice" in refused(one, one)["detail"]
    same = write_job(tmp_path / "copy", values(HARD), job="diag_one")
    assert "are the same job, diag_one" in refused(one, same)["detail"]
    (folders[1] / "tokens.parquet").unlink()
    assert refused(one, folders[1])["code"] == "artifact_not_found"
    (folders[2] / "report.json").write_text("{")
    assert "it is not JSON" in refused(one, folders[2])["detail"]
    other = tmp_path / "mitigate.json"
    other.write_text(json.dumps(mitigate_variants()["helped"]))
    assert "of kind mitigate" in refused(one, other)["detail"]


def test_a_folder_that_is_not_there_is_asked_of_no_service(folders: list[Path]) -> None:
    error = refused(folders[0], folders[0] / "gone", "--url", "http://127.0.0.1:9")
    assert error["detail"] == f"there is no file or folder {folders[0] / 'gone'}"
    assert "tokens.parquet" in error["hint"]


def test_what_is_no_file_is_asked_of_the_service(folders: list[Path]) -> None:
    error = refused(folders[0], "diag_nothing", "--url", "http://127.0.0.1:9", ends=4)
    assert error["code"] == "unavailable"
    assert "neither a file nor a folder here" in error["detail"]


@pytest.fixture
def service(folders: list[Path]) -> Iterator[str]:
    """Serves the first two folders' files as a service does."""
    files = {f"{JOB}{index}": folder for index, folder in enumerate(folders[:2])}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job, _, what = self.path.removeprefix("/v1/diagnosis/jobs/").partition("/")
            file = files[job] / {"report": "report.json", "artifacts/tokens.parquet": "tokens.parquet"}[what]
            self.send_response(200)
            self.send_header("content-length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.write(file.read_bytes())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_jobs_of_a_service_are_compared_by_their_ids(service: str) -> None:
    status, output = run(f"{JOB}0", f"{JOB}1", "--url", service, "--json")
    assert status == 0
    assert [row["job"] for row in json.loads(output)["ranking"]] == ["diag_two", "diag_one"]


def test_a_job_of_another_kind_is_named_and_its_values_not_asked_for(service: str, folders: list[Path]) -> None:
    (folders[1] / "report.json").write_text(json.dumps(mitigate_variants()["helped"]))
    (folders[1] / "tokens.parquet").unlink()
    error = refused(f"{JOB}0", f"{JOB}1", "--url", service)
    assert f"{JOB}1 is a report of kind mitigate" in error["detail"]
