"""The dashboard *Damage of served traffic*: `python -m deploy.grafana.board` writes dashboards/bleeding.json.

A row of stats shows the damage of every deployment; the graphs below show the reasons. docs/board.md explains how to
read it. Panels draw the metrics as they are: no smoothing, and gaps if nothing was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.frame import frame
from deploy.grafana.panels import (
    BLUE,
    DATASOURCE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SELECTED,
    YELLOW,
    Query,
    Style,
    graph,
    mapping,
    stat_panel,
)

FILE: Final = Path(__file__).parent / "dashboards" / "bleeding.json"
UID: Final = "hemostat-bleeding"
NOT_YET: Final = "not measured yet"

SEVERITY: Final = {
    0.0: ("none", GREEN),
    1.0: ("mild", BLUE),
    2.0: ("moderate", YELLOW),
    3.0: ("severe", ORANGE),
    4.0: ("collapse", RED),
}
DRIFT: Final = {1.0: ("learning", BLUE), 2.0: ("ok", GREEN), 3.0: ("stale", ORANGE), 4.0: ("ALARM", RED)}


def series(metric: str, *, by: str = "deployment", **labels: str) -> str:
    """The selected deployments' series of a metric, one for each value of `by`, whichever process exports it."""
    matchers = ",".join([SELECTED, *(f'{name}="{value}"' for name, value in labels.items())])
    return f"max by ({by}) ({metric}{{{matchers}}})"


def rate(metric: str, *, by: str = "deployment", function: str = "rate", window: str = "$__rate_interval") -> str:
    """Change of a counter."""
    return f"sum by ({by}) ({function}({metric}{{{SELECTED}}}[{window}]))"


def quantile(q: float, metric: str) -> str:
    """A quantile of a histogram of ours."""
    return f"histogram_quantile({q}, {rate(metric + '_bucket', by='deployment, le')})"


def drift_number() -> str:
    """The drift state as the number that `DRIFT` names."""
    states = ("learning", "ok", "stale", "alarm")
    parts = [f"{number} * {series('hemostat_drift_state', state=state)}" for number, state in enumerate(states, 1)]
    return " + on (deployment) ".join(parts)


def mode() -> str:
    """One mode per deployment. If two API processes export different modes for one scrape, it is a mode that keeps the
    service from changing anything. None if the API exports no mode."""
    told = [
        f"{series('hemostat_calibration_mode', by='deployment, mode', mode=each)} == 1"
        for each in ("frozen", "off", "auto")
    ]
    return " or on (deployment) ".join(told)


def stats() -> list[Any]:
    """The first row."""
    age = f"time() - {series('hemostat_calibration_activated_timestamp_seconds')}"
    version = series("hemostat_calibration_info", by="deployment, version")
    since = f"(({age}) * on (deployment) group_right () {version} or {version} * NaN)"
    return [
        stat_panel(
            "Severity",
            "Damage of the served model: class of the mean KL(reference‖served) of the recent window, calibrated. "
            "Nats per token: none < 0.01 ≤ mild < 0.05 ≤ moderate < 0.2 ≤ severe < 1 ≤ collapse.",
            Query(series("hemostat_served_severity"), "{{deployment}}"),
            unit="none",
            steps=[(None, GREY)],
            mappings=mapping(SEVERITY),
            no_value=NOT_YET,
        ),
        stat_panel(
            "Drift",
            "ALARM: a sequential test has shown that served traffic diverges by more than the drift limit or the "
            "quiet limit. stale: no request was scored recently, so the drift is not known. learning: too few "
            "requests were scored, or there is no limit yet.",
            Query(drift_number(), "{{deployment}}"),
            unit="none",
            steps=[(None, GREY)],
            mappings=mapping(DRIFT),
            no_value="not watched",
        ),
        stat_panel(
            "KL of threshold",
            "Mean KL of served (calibrated) traffic as a share of the deployment's drift limit. Above 100 % it is "
            "too much; the interval in the graph below shows the uncertainty.",
            Query(
                f"{series('hemostat_served_kl_mean_nats', stage='calibrated')}"
                f" / on (deployment) {series('hemostat_drift_threshold_nats')}",
                "{{deployment}}",
            ),
            unit="percentunit",
            decimals=0,
            steps=[(None, GREEN), (0.8, ORANGE), (1.0, RED)],
            no_value="no drift limit yet",
        ),
        stat_panel(
            "KL removed by calibration",
            "Share of the raw model's KL that the calibration removes on live traffic. Below zero it does harm. 0 % "
            "while identity is served.",
            Query(
                f"{series('hemostat_served_saved_mean_nats')}"
                f" / on (deployment) {series('hemostat_served_kl_mean_nats', stage='raw')}",
                "{{deployment}}",
            ),
            unit="percentunit",
            decimals=1,
            steps=[(None, RED), (0.0, GREEN)],
            no_value=NOT_YET,
        ),
        stat_panel(
            "Freshness",
            "Time since a served request was last scored. If it is long, the numbers on this board are old: they do "
            "not show that the model is well.",
            Query(
                f"time() - {series('hemostat_drift_last_observation_timestamp_seconds')}",
                "{{deployment}}",
            ),
            unit="s",
            steps=[(None, GREEN), (600.0, ORANGE), (3600.0, RED)],
            no_value="never scored",
        ),
        stat_panel(
            "Calibration version",
            "The version that new requests get, how long it has been active, and whether the service may change it "
            "(auto) or not (frozen, off). identity: no correction.",
            Query(
                f"{since} * on (deployment) group_left (mode) ({mode()})"
                f' or on (deployment, version) label_replace({since}, "mode", "mode not known", "", "")',
                "{{deployment}}: {{version}}, {{mode}}",
            ),
            unit="dtdurations",
            steps=[(None, GREY)],
            no_value="since it was created",
        ),
    ]


def graphs() -> list[Any]:
    """The graphs below the stats."""
    kl = "hemostat_served_kl_{}_nats"
    first, between = "hemostat_gateway_time_to_first_token_seconds", "hemostat_gateway_inter_token_latency_seconds"
    return [
        graph(
            "$deployment: KL against threshold",
            "Mean KL(reference‖served) of the recent window with its 95 % interval (clustered by request). "
            "threshold: the drift limit. Band above this line: the deployment has drifted. Band across it: not "
            "decided. quiet limit: the usual KL of the first live requests.",
            [
                Query(series(kl.format("mean"), stage="calibrated"), "mean"),
                Query(series(kl.format("high"), stage="calibrated"), "upper 95 % limit"),
                Query(series(kl.format("low"), stage="calibrated"), "lower 95 % limit"),
                Query(series("hemostat_drift_threshold_nats"), "threshold"),
                Query(series("hemostat_drift_quiet_limit_nats"), "quiet limit"),
            ],
            unit="suffix: nats",
            span=24,
            height=10,
            minimum=0,
            styles=[
                Style("mean", colour=BLUE, width=2),
                Style("upper 95 % limit", colour=BLUE, width=0, fill_to="lower 95 % limit"),
                Style("lower 95 % limit", colour=BLUE, width=0),
                Style("threshold", colour=RED, dashed=True),
                Style("quiet limit", colour=ORANGE, dashed=True),
            ],
            no_value=NOT_YET,
        )
        .repeat("deployment")
        .repeat_direction("h")
        .max_per_row(2),
        graph(
            "Raw against calibrated",
            "The same generated positions, scored by the modified model without (raw) and with the calibration "
            "(calibrated). engine: distance between the serving and the scoring engine for the same weights. If it "
            "is large, a kernel is wrong, not the model. Mild, moderate, severe and collapse begin at the dashed "
            "lines.",
            [Query(series(kl.format("mean"), by="deployment, stage"), "{{deployment}} {{stage}}")],
            unit="suffix: nats",
            span=12,
            minimum=0,
            steps=[(None, GREEN), (0.01, BLUE), (0.05, YELLOW), (0.2, ORANGE), (1.0, RED)],
            styles=[Style("/ engine$/", dashed=True, pattern=True)],
            no_value=NOT_YET,
        ),
        graph(
            "Nats saved by calibration",
            "raw − calibrated, paired by position, with its 95 % interval. Band above zero: the calibration helps. "
            "Below zero: it does harm, and the service rolls it back unless it is frozen.",
            [
                Query(series("hemostat_served_saved_mean_nats"), "{{deployment}}"),
                Query(series("hemostat_served_saved_high_nats"), "{{deployment}} upper 95 %"),
                Query(series("hemostat_served_saved_low_nats"), "{{deployment}} lower 95 %"),
            ],
            unit="suffix: nats",
            span=12,
            steps=[(None, RED), (0.0, GREEN)],
            styles=[Style("/ (upper|lower) 95 %$/", dashed=True, width=1, pattern=True)],
            no_value=NOT_YET,
        ),
        graph(
            "Top-1 agreement",
            "Share of generated positions at which reference and model rank the same token first.",
            [Query(series("hemostat_served_top1_agreement_ratio", by="deployment, stage"), "{{deployment}} {{stage}}")],
            unit="percentunit",
            span=12,
            maximum=1,
            no_value=NOT_YET,
        ),
        graph(
            "Evidence of drift",
            "The e-value against 'no drift'; the alarm is raised at the dashed line. You may look at it at any time: "
            "without drift, an alarm is ever raised with probability alpha at most. Both limits share alpha. So do "
            "episodes: another version, another limit or a cleared alarm starts one, and each needs more evidence.",
            [
                Query(series("hemostat_drift_e_value"), "{{deployment}}"),
                Query(series("hemostat_drift_e_value_needed"), "{{deployment}} alarm at"),
                Query(series("hemostat_drift_quiet_e_value"), "{{deployment}} quiet"),
                Query(series("hemostat_drift_quiet_e_value_needed"), "{{deployment}} quiet alarm at"),
            ],
            unit="none",
            span=12,
            log=True,
            styles=[Style("/ alarm at$/", colour=RED, dashed=True, pattern=True)],
            no_value="not watched",
        ),
        graph(
            "Shadow scoring",
            "Requests per second that were queued, scored, and dropped (any reason). Right axis: delay of the "
            "scoring. The estimates above use the scored requests only.",
            [
                Query(rate("hemostat_shadow_sampled_total"), "{{deployment}} queued"),
                Query(rate("hemostat_shadow_scored_requests_total"), "{{deployment}} scored"),
                Query(rate("hemostat_shadow_dropped_total"), "{{deployment}} dropped"),
                Query(series("hemostat_shadow_lag_seconds"), "{{deployment}} lag"),
            ],
            unit="reqps",
            span=8,
            minimum=0,
            styles=[
                Style("/ dropped$/", colour=RED, pattern=True),
                Style("/ lag$/", right_unit="s", dashed=True, pattern=True),
            ],
            no_value="nothing sampled",
        ),
        graph(
            "Latency and load",
            "At the gateway: time to the first token (median and 95th percentile) and between tokens (95th "
            "percentile). Right axis: generated tokens per second.",
            [
                Query(quantile(0.5, first), "{{deployment}} first token p50"),
                Query(quantile(0.95, first), "{{deployment}} first token p95"),
                Query(quantile(0.95, between), "{{deployment}} between tokens p95"),
                Query(
                    f'sum by (deployment) (rate(hemostat_gateway_tokens_total{{{SELECTED},kind="completion"}}'
                    "[$__rate_interval]))",
                    "{{deployment}} tokens",
                ),
            ],
            unit="s",
            span=8,
            minimum=0,
            styles=[Style("/ tokens$/", right_unit="suffix: tokens/s", dashed=True, pattern=True)],
            no_value="no traffic",
        ),
        graph(
            "Replicas and requests",
            "Ready and wanted replicas, requests at the replicas, and requests that wait for a replica.",
            [
                Query(series("hemostat_deployment_replicas", state="ready"), "{{deployment}} ready"),
                Query(series("hemostat_deployment_replicas_wanted"), "{{deployment}} wanted"),
                Query(series("hemostat_gateway_in_flight_requests"), "{{deployment}} in flight"),
                Query(series("hemostat_gateway_queued_requests"), "{{deployment}} queued"),
            ],
            unit="none",
            span=8,
            minimum=0,
            styles=[Style("/ wanted$/", dashed=True, pattern=True), Style("/ queued$/", colour=ORANGE, pattern=True)],
            no_value="no deployment",
        ),
    ]


def annotation_queries() -> list[tuple[dashboard.AnnotationQuery, dict[str, str]]]:
    """Marks in every graph, each with the fields that Grafana's Prometheus source has and the typed builder has not."""
    version = series("hemostat_calibration_info", by="deployment, version")

    def rose(metric: str) -> str:
        risen = f"max by (deployment) (increase({metric}{{{SELECTED}}}[1m])) > 0"
        return f"({risen}) * on (deployment) group_right () {version}"

    marks = {
        "Drift alarms": (
            f"{series('hemostat_drift_alarm_active', by='deployment, limit')} == 1",
            RED,
            "alarm",
            "above the {{limit}} limit",
        ),
        "Promotions": (rose("hemostat_calibration_promotions_total"), GREEN, "promoted", "{{version}}"),
        "Rollbacks": (rose("hemostat_calibration_rollbacks_total"), ORANGE, "rolled back", "to {{version}}"),
    }
    return [
        (
            dashboard.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .enable(True)
            .hide(False)
            .icon_color(colour)
            .expr(expr),
            {"step": "15s", "titleFormat": "{{deployment}}: " + title, "textFormat": text, "tagKeys": "deployment"},
        )
        for name, (expr, colour, title, text) in marks.items()
    ]


def build() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    board = frame(
        "Damage of served traffic",
        UID,
        "How far served models are from their unmodified reference, and whether the calibration helps.",
        [*stats(), *graphs()],
        choose="deployment",
        label="Deployment",
        of="hemostat_deployment_state",
    )
    marks = annotation_queries()
    for mark, _ in marks:
        board = board.annotation(mark)
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for written, (_, more) in zip(made["annotations"]["list"], marks, strict=True):
        written.update(more)
    return made


def render() -> str:
    """The text of the checked-in file."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
