"""What every dashboard has: its frame, the data source, one variable to choose by, and its panels in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import DATASOURCE


def frame(
    title: str, uid: str, description: str, panels: Iterable[Any], *, choose: str, label: str, of: str
) -> dashboard.Dashboard:
    """A dashboard of these panels, numbered as they come; `choose` is the label whose values, those of the metric `of`,
    can be selected, shown as `label`."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["hemostat"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable(choose)
            .label(label)
            .datasource(DATASOURCE)
            .query({"query": f"label_values({of}, {choose})", "refId": choose})
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
        )
    )
    for number, panel in enumerate(panels, 1):
        board = board.with_panel(panel.id(number))
    return board
