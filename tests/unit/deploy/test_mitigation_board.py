"""The dashboard of mitigate jobs is what its generator makes, and says what it shows."""

import itertools
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana import board, mitigation

Json = dict[str, Any]
BOARD: Json = json.loads(mitigation.FILE.read_text(encoding="utf-8"))
PANELS: list[Json] = BOARD["panels"]


def titled(panel: Json) -> str:
    return str(panel["title"])


def test_the_file_is_what_the_generator_makes() -> None:
    assert mitigation.FILE.read_text(encoding="utf-8") == mitigation.render(), "run: make board"
    assert mitigation.FILE.parent == board.FILE.parent  # the folder that Grafana is given
    assert BOARD["uid"] != board.UID


def test_grafanas_own_model_reads_every_field() -> None:
    register_default_plugins()
    assert json.loads(json.dumps(models.Dashboard.from_json(BOARD), cls=JSONEncoder)) == BOARD


def test_panels_fill_the_grid_without_overlap() -> None:
    cells: list[tuple[int, int]] = []
    for panel in PANELS:
        at = panel["gridPos"]
        cells += itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    rows = max(y for _, y in cells) + 1
    assert sorted(cells) == sorted(itertools.product(range(24), range(rows)))


@pytest.mark.parametrize("panel", PANELS, ids=titled)
def test_a_panel_says_what_it_shows_in_which_unit_and_what_no_data_means(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 40
    assert defaults["unit"]
    assert defaults["noValue"] not in {"", "No data", "-"}
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"]["uid"] == "${datasource}"
        assert set(re.findall(r"\[(.+?)\]", target["expr"])) <= {"$__rate_interval", "$__range"}
        if "by (model" in target["expr"]:
            assert 'model=~"$model"' in target["expr"]
