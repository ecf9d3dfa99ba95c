"""Panels as this project wants them: a unit, a description, what no data means, thresholds that are meant.

Grafana's defaults are wrong for numbers like these (a threshold at 80, no unit, "No data"), so nothing is left to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
SELECTED: Final = 'deployment=~"$deployment"'

GREEN, BLUE, YELLOW, ORANGE, RED, GREY = "green", "blue", "yellow", "orange", "red", "text"
Steps = Sequence[tuple[float | None, str]]  # (from this value on, colour); the first begins at None, minus infinity


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called (a legend format)."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Style:
    """How one series of a graph differs from the others, by its name or, with `pattern`, by names that match."""

    series: str
    colour: str | None = None
    dashed: bool = False
    width: float | None = None
    fill_to: str | None = None  # the band's other edge
    right_unit: str | None = None  # on an axis of its own, to the right
    pattern: bool = False


def mapping(texts: Mapping[float, tuple[str, str]]) -> list[models.ValueMapping]:
    """Numbers that stand for states, with their words and colours."""
    options = {
        f"{value:g}": models.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(texts.items())
    }
    return [models.ValueMap(options=options)]


def unknown(text: str, first: int = 0) -> models.ValueMapping:
    """What NaN is called."""
    result = models.ValueMappingResult(text=text, color=GREY, index=first)
    options = models.DashboardSpecialValueMapOptions(match=models.SpecialValueMatch.NULL_AND_NAN, result=result)
    return models.SpecialValueMap(options=options)


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Absolute thresholds."""
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def target(query: Query, ref: str, *, instant: bool) -> prometheus.Dataquery:
    """A query of a panel."""
    made = prometheus.Dataquery().ref_id(ref).expr(query.expr).legend_format(query.legend).datasource(DATASOURCE)
    return made.instant() if instant else made.range()


def stat_panel(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    steps: Steps,
    no_value: str,
    mappings: Sequence[models.ValueMapping] = (),
    decimals: int | None = None,
    name: bool = True,
) -> stat.Panel:
    """One number for each deployment, coloured by what it means. 4 by 5."""
    text = common_models.BigValueTextMode.VALUE_AND_NAME if name else common_models.BigValueTextMode.AUTO
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(target(query, "A", instant=True))
        .unit(unit)
        .thresholds(thresholds(steps))
        .no_value(no_value)
        .mappings([*mappings, unknown(no_value, len(mappings) * 10)])
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .text_mode(text)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .span(4)
        .height(5)
    )
    return panel if decimals is None else panel.decimals(decimals)


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    span: int,
    no_value: str,
    height: int = 9,
    steps: Steps = ((None, GREEN),),
    styles: Sequence[Style] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    log: bool = False,
    points: bool = False,
) -> timeseries.Panel:
    """Lines over time. Thresholds beyond the first step are drawn as lines."""
    modes = common_models.GraphThresholdsStyleMode
    drawn = modes.DASHED if len(steps) > 1 else modes.OFF
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .no_value(no_value)
        .thresholds(thresholds(steps))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(drawn))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(2)
        .fill_opacity(0)
        .span_nulls(False)
        .show_points(common_models.VisibilityMode.AUTO if points else common_models.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
        .span(span)
        .height(height)
    )
    if log:
        scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scale)
    if minimum is not None:
        panel = panel.min(minimum)
    if maximum is not None:
        panel = panel.max(maximum)
    for index, query in enumerate(queries):
        panel = panel.with_target(target(query, chr(ord("A") + index), instant=False))
    for style in styles:
        by = panel.override_by_regexp if style.pattern else panel.override_by_name
        panel = by(style.series, _properties(style))
    return panel


def _properties(style: Style) -> list[models.DynamicConfigValue]:
    found: list[tuple[str, object]] = []
    if style.colour:
        found.append(("color", {"mode": "fixed", "fixedColor": style.colour}))
    if style.dashed:
        found.append(("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}))
    if style.width is not None:
        found.append(("custom.lineWidth", style.width))
    if style.fill_to:
        found += [("custom.fillBelowTo", style.fill_to), ("custom.fillOpacity", 20)]
    if style.right_unit:
        found += [("custom.axisPlacement", "right"), ("unit", style.right_unit)]
    return [models.DynamicConfigValue(id_val=name, value=value) for name, value in found]
