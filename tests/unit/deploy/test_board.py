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

from deploy.grafana import board
from deploy.grafana.queries import queries
from tests.support.tools import tool

Json = dict[str, Any]
BOARD: Json = json.loads(board.FILE.read_text(encoding="utf-8"))
PANELS: list[Json] = BOARD["panels"]
# What Grafana's Prometheus source reads of an annotation, and the typed model does not know.
BEYOND_THE_MODEL = {"step", "titleFormat", "textFormat", "tagKeys"}


def titled(panel: Json) -> str:
    return str(panel["title"])


def test_the_file_is_what_the_generator_makes() -> None:
    assert board.FILE.read_text(encoding="utf-8") == board.render(), "run: python -m deploy.grafana.board"


def test_grafanas_own_model_reads_every_field() -> None:
    register_default_plugins()
    read = json.loads(json.dumps(models.Dashboard.from_json(BOARD), cls=JSONEncoder))
    for mark, original in zip(read["annotations"]["list"], BOARD["annotations"]["list"], strict=True):
        assert set(original) - set(mark) == BEYOND_THE_MODEL
        mark.update({name: original[name] for name in BEYOND_THE_MODEL})
    assert read == BOARD


def test_there_are_few_panels_and_each_has_an_id_of_its_own() -> None:
    assert len(PANELS) <= 14
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    assert len({titled(panel) for panel in PANELS}) == len(PANELS)


def test_panels_fill_the_grid_without_overlap_stats_first() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        mine = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not mine & cells, titled(panel)
        assert at["x"] + at["w"] <= 24
        cells |= mine
    rows = max(y for _, y in cells) + 1
    assert cells == set(itertools.product(range(24), range(rows))), "there are holes"
    first = [panel["type"] for panel in PANELS if panel["gridPos"]["y"] == 0]
    assert set(first) == {"stat"}
    assert all(panel["type"] != "stat" for panel in PANELS if panel["gridPos"]["y"] > 0)


@pytest.mark.parametrize("panel", PANELS, ids=titled)
def test_a_panel_says_what_it_shows_in_which_unit_and_what_no_data_means(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 40
    assert defaults["unit"]
    assert defaults["noValue"] not in {"", "No data", "-"}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"], "a series without a name shows its labels"


@pytest.mark.parametrize("panel", PANELS, ids=titled)
def test_thresholds_are_meant(panel: Json) -> None:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    values = [step["value"] for step in steps]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    assert 80 not in values, "Grafana's default"


@pytest.mark.parametrize("panel", PANELS, ids=titled)
def test_queries_follow_the_selected_source_and_deployment(panel: Json) -> None:
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        selectors = re.findall(r"hemostat_\w+(\{[^}]*\})?", target["expr"])
        assert selectors
        assert all('deployment=~"$deployment"' in selector for selector in selectors)
        windows = re.findall(r"\[(.+?)\]", target["expr"])
        assert set(windows) <= {"$__rate_interval"}


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


def test_what_the_issue_of_the_board_is_can_be_seen_on_it() -> None:
    text = json.dumps(BOARD)
    for wanted in (
        "hemostat_served_severity",
        "hemostat_served_kl_mean_nats",
        "hemostat_served_kl_low_nats",
        "hemostat_served_kl_high_nats",
        "hemostat_drift_threshold_nats",
        "hemostat_served_top1_agreement_ratio",
        "hemostat_drift_last_observation_timestamp_seconds",
        "hemostat_calibration_info",
        "hemostat_calibration_mode",
    ):
        assert wanted in text
    assert [mark["name"] for mark in BOARD["annotations"]["list"]] == ["Drift alarms", "Promotions", "Rollbacks"]
    assert [variable["name"] for variable in BOARD["templating"]["list"]] == ["datasource", "deployment"]


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
