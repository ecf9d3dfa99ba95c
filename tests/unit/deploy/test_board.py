"""The checked-in dashboard is what its generator makes, Grafana's own model reads it whole, no panel is left vague."""

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana import board, mitigation
from deploy.grafana.queries import queries
from tests.support.tools import tool

Json = dict[str, Any]
BOARD: Json = json.loads(board.FILE.read_text(encoding="utf-8"))
PANELS: list[Json] = BOARD["panels"]
BOARDS = [board, mitigation]
# What Grafana's Prometheus source reads of an annotation, and the typed model does not know.
BEYOND_THE_MODEL = {"step", "titleFormat", "textFormat", "tagKeys"}


@pytest.mark.parametrize("made", BOARDS)
def test_the_file_is_what_the_generator_makes_and_fills_the_grid(made: Any) -> None:
    assert made.FILE.read_text(encoding="utf-8") == made.render(), "run: make board"
    cells: list[tuple[int, int]] = []
    for panel in json.loads(made.FILE.read_text(encoding="utf-8"))["panels"]:
        at = panel["gridPos"]
        cells += itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    rows = max(y for _, y in cells) + 1
    assert sorted(cells) == sorted(itertools.product(range(24), range(rows)))


@pytest.mark.parametrize("made", BOARDS)
def test_grafanas_own_model_reads_every_field(made: Any) -> None:
    register_default_plugins()
    written = json.loads(made.FILE.read_text(encoding="utf-8"))
    read = json.loads(json.dumps(models.Dashboard.from_json(written), cls=JSONEncoder))
    for mark, original in zip(read["annotations"]["list"], written["annotations"]["list"], strict=True):
        mark.update({name: original[name] for name in BEYOND_THE_MODEL & set(original)})
    assert read == written


@pytest.mark.parametrize("made", BOARDS)
def test_a_panel_has_a_unit_a_word_for_no_data_and_thresholds_that_are_meant(made: Any) -> None:
    for panel in json.loads(made.FILE.read_text(encoding="utf-8"))["panels"]:
        defaults, title = panel["fieldConfig"]["defaults"], panel["title"]
        assert panel["description"] and defaults["unit"] and panel["targets"], title
        assert defaults["noValue"] not in {"", "No data", "-"}, title
        values = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert values[0] is None and values[1:] == sorted(values[1:]), title
        assert 80 not in values, "Grafana's default"
        for target in panel["targets"]:
            assert target["legendFormat"], "a series without a name shows its labels"
            assert target["datasource"]["uid"] == "${datasource}", title
            assert set(re.findall(r"\[(.+?)\]", target["expr"])) <= {"$__rate_interval", "$__range"}, title
            assert "by (model" not in target["expr"] or 'model=~"$model"' in target["expr"], title


def test_queries_follow_the_selected_source_and_deployment() -> None:
    for panel in PANELS:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            selectors = re.findall(r"hemostat_\w+(\{[^}]*\})?", target["expr"])
            assert selectors
            assert all('deployment=~"$deployment"' in selector for selector in selectors)
            assert "$__range" not in target["expr"]


def test_overrides_name_series_that_there_are() -> None:
    for panel in PANELS:
        legends = [re.sub(r"\{\{(\w+)\}\}", r"\1", target["legendFormat"]) for target in panel["targets"]]
        for override in panel["fieldConfig"]["overrides"]:
            wanted = override["matcher"]["options"]
            if override["matcher"]["id"] == "byRegexp":
                pattern = re.compile(wanted.strip("/"))
                stages = [f"bot {stage}" for stage in ("raw", "calibrated", "engine")]
                assert any(pattern.search(legend) for legend in [*legends, *stages]), wanted
            else:
                assert wanted in legends
            for changed in override["properties"]:
                if changed["id"] == "custom.fillBelowTo":
                    assert changed["value"] in legends


def test_severity_and_drift_have_words_for_every_number() -> None:
    from app.contracts.deployment import DriftState
    from app.contracts.report import SEVERITIES

    assert [text for text, _ in board.SEVERITY.values()] == list(SEVERITIES)
    assert list(board.SEVERITY) == list(range(len(SEVERITIES)))
    assert {text.casefold() for text, _ in board.DRIFT.values()} == {state.value for state in DriftState}


def test_a_version_is_told_with_one_mode_also_where_two_processes_differ_or_none_tells_it(tmp_path: Path) -> None:
    """Of `two` one API process knows of a change that the other has not seen; that of `old` tells no mode at all."""
    (asked,) = (one for one in queries(BOARD, {"deployment": ".+"}) if one.place == "Calibration version / A")

    def told(instance: str, deployment: str, mode: str | None) -> list[dict[str, str]]:
        labels = f'instance="{instance}",deployment="{deployment}"'
        of = {
            f'hemostat_calibration_info{{{labels},version="identity"}}': "1 1",
            f"hemostat_calibration_activated_timestamp_seconds{{{labels}}}": "0 0",
        }
        modes = ("auto", "frozen", "off") if mode is not None else ()
        of |= {
            f'hemostat_calibration_mode{{{labels},mode="{each}"}}': "1 1" if each == mode else "0 0" for each in modes
        }
        return [{"series": name, "values": values} for name, values in of.items()]

    series = [
        *told("one", "two", "auto"),
        *told("other", "two", "frozen"),
        *told("one", "bot", "off"),
        *told("other", "bot", "off"),
        *told("one", "new", "auto"),
        *told("one", "old", None),
    ]
    modes = {"two": "frozen", "bot": "off", "new": "auto", "old": "mode not known"}
    shown = [
        {"labels": f'{{deployment="{deployment}", version="identity", mode="{mode}"}}', "value": 60}
        for deployment, mode in modes.items()
    ]
    case = {"expr": asked.expr, "eval_time": "1m", "exp_samples": shown}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [case]}
    file = tmp_path / "modes.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
