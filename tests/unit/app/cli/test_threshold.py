"""`hemostat threshold`: JSON for programs, a table for people, faults with their place."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from tests.unit.workers.analysis.threshold.curves import CURVES, FILE

POINTS = [
    [0.1, 5.4778], [0.2, 5.5182], [0.3, 5.6339], [0.4, 5.952], [0.5, 6.7975], [0.6, 10.9331], [0.7, 86.41], [0.8, 3833]
]  # fmt: skip
CURVE = {"points": POINTS, "bounds": {"b": [0, None], "k1": [0, None], "k2": [0, None]}}


def run(*arguments):
    result = CliRunner().invoke(app, ["threshold", *map(str, arguments)], env={"COLUMNS": "120"})
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(CURVE))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What is written of these points, for people and for programs."""
    path = tmp_path_factory.mktemp("written") / "curve.json"
    path.write_text(json.dumps(CURVE))
    for_people, for_programs = run(path), run(path, "--json")
    assert for_people[0] == for_programs[0] == 0
    return {"people": for_people[1], "programs": for_programs[1]}


def test_json_is_the_answer_and_nothing_else(written):
    answer: dict[str, Any] = json.loads(written["programs"])
    assert answer["s0"] == pytest.approx(0.5222, abs=0.001)
    assert answer["identifiable"] is False
    assert answer["answer"] == "not identifiable"
    assert set(answer) >= {"s0", "ci", "form", "identifiable", "params", "log_sse", "rivals"}


def test_the_gap_to_published_coefficients_is_shown_to_people_and_programs(tmp_path):
    """Made by hand: y = 8 s up to the knee, then a straight line in ln y; the published ones have a doubled a."""
    knee, slope = 0.4, 6.0
    data = [
        [s, 8 * min(s, knee) * math.exp(slope * max(s - knee, 0))] for s in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    ]
    right = {"a": 8.0, "b": 1.0, "s0": knee, "k1": slope, "k2": 0.0}
    doubled = {"data": data, "params": right | {"a": 16.0}, "published_log_sse": 1.0, "star": [0.4, 6.4], "figure": "1"}
    path = tmp_path / "published.json"
    path.write_text(
        json.dumps({"doubled": doubled, "right": {"points": data, "params": right}, "bare": {"data": data[:5]}})
    )
    told = json.loads(run(path, "--curve", "doubled", "--json")[1])
    gap = len(data) * math.log(2) ** 2  # every point misses by ln 2
    assert told["published"]["log_sse"] == pytest.approx(gap, rel=1e-9)
    assert told["published"]["difference"] == pytest.approx(told["log_sse"] - gap, rel=1e-9)
    assert told["log_sse"] == pytest.approx(0, abs=1e-9)
    status, output = run(path, "--curve", "doubled")
    assert status == 0
    assert f"log SSE {gap:.3f}" in output
    assert f"= \u2212{gap:.3f}" in output
    assert "the stated log SSE, 1, is not that of the published coefficients" in " ".join(output.split())
    right_one = json.loads(run(path, "--curve", "right", "--json")[1])["published"]
    assert right_one["difference"] == pytest.approx(0, abs=1e-9)
    assert json.loads(run(path, "--curve", "bare", "--json")[1])["published"] is None
    assert "as published" in output
    assert "as published" not in run(path, "--curve", "bare")[1]


def test_a_curve_of_the_published_file_is_read_as_it_is():
    """All ten are in one file, with what is told of them beside: figure, star, flag."""
    status, output = run(FILE, "--curve", "RIA", "--json")
    assert status == 0, output
    case, answer = CURVES["RIA"], json.loads(output)
    told = answer["published"]
    assert (told["params"], told["stated_log_sse"], told["notes"]) == (case.params, case.log_sse, [])
    assert told["difference"] == pytest.approx(answer["log_sse"] - told["log_sse"], abs=1e-12)
    assert (answer["answer"], answer["points"]) == ("not identifiable", len(case.curve))


def test_a_fault_ends_with_status_2_its_place_and_what_to_do(file, tmp_path):
    def error(path):
        status, output = run(path, "--json")
        assert status == 2
        return json.loads(output)["error"]

    for content, pointer, said in (
        (json.dumps({"points": POINTS, "bounds": {"k3": [0, 1]}}).encode(), "/bounds/k3", "did you mean"),
        (json.dumps({"one": {"points": POINTS}, "two": {"points": POINTS}}).encode(), None, "--curve: one, two"),
        (b"\xff\xfe{}", None, "UTF-8"),
        (b"{", None, "JSON"),
    ):
        file.write_bytes(content)
        found = error(file)
        assert pointer is None or (found["code"], found["pointer"]) == ("invalid_request", pointer)
        assert said in f"{found['detail']} {found['hint']}"
    assert "none.json" in error(tmp_path / "none.json")["detail"]


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)


def test_the_command_line_and_the_fit_load_no_torch_and_without_numpy_the_way_to_get_it_is_told(file):
    done = python(
        "import sys; import app.cli.main; assert 'scipy' not in sys.modules; "
        f"from app.cli.threshold import _answer; from pathlib import Path; _answer(Path({str(file)!r}), 0); "
        "assert 'scipy' in sys.modules; assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    done = python(
        "import sys; sys.modules['numpy'] = None; from app.cli.main import app; "
        f"app(['threshold', {str(file)!r}, '--json'])"
    )
    assert done.returncode == 4, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unavailable"
    assert "numpy" in error["detail"]
