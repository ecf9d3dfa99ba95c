"""The dashboard *What did treatment save?*: `python -m deploy.grafana.mitigation` writes dashboards/mitigation.json.

It shows jobs, not served traffic, so it is a dashboard of its own: trials, their time, and the nats that the last
mitigation of each candidate saved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.frame import frame
from deploy.grafana.panels import BLUE, GREEN, GREY, ORANGE, RED, Query, Style, graph, mapping, stat_panel

FILE: Final = Path(__file__).parent / "dashboards" / "mitigation.json"
UID: Final = "hemostat-mitigation"
NONE_YET: Final = "no mitigation in this time"
_ENDED: Final = 'hemostat_mitigate_finished_timestamp_seconds{model=~"$model"}'
# Every worker keeps the numbers of its own last job: of one candidate, those are taken that came last.


def saved(name: str, *, last: bool = False) -> str:
    """A gauge of the last mitigation of each selected candidate, from any worker.

    `last`: also from a worker that has ended or restarted since, and no longer exports it: its last value in the shown
    time.
    """
    ended, gauge = (
        f"last_over_time({one}[$__range])" if last else one
        for one in (_ENDED, f'hemostat_mitigate_{name}{{model=~"$model"}}')
    )
    newest = f"({ended} == on (model, recipe) group_left () max by (model, recipe) ({ended}))"
    return f"max by (model, recipe) ({gauge} and {newest})"


def quantile(q: float) -> str:
    """A quantile of the seconds per trial, by rung."""
    return (
        f"histogram_quantile({q}, sum by (rung, le) (rate(hemostat_mitigate_trial_seconds_bucket[$__rate_interval])))"
    )


def panels() -> list[Any]:
    """Stats first, then graphs."""
    return [
        stat_panel(
            "Trials running",
            "Trials that all workers make and measure now.",
            Query("sum(hemostat_mitigate_trial_running)", "running"),
            unit="none",
            steps=[(None, GREY), (1.0, BLUE)],
            no_value="no worker",
            name=False,
        ).span(8),
        stat_panel(
            "Saved on the test",
            "Nats per token that the recommended recipe of the last mitigation saves, on documents that took no part "
            "in the choice. At most the candidate's KL.",
            Query(saved("saved_nats", last=True), "{{model}} {{recipe}}"),
            unit="suffix: nats",
            steps=[(None, RED), (0.0, GREEN)],
            no_value=NONE_YET,
        ).span(8),
        stat_panel(
            "Helped for sure",
            "Whether the 95 % interval of the nats saved on the test is above zero. If not, nothing in the report is "
            "proven: leave the candidate as it is, or give more text.",
            Query(saved("helped", last=True), "{{model}} {{recipe}}"),
            unit="none",
            steps=[(None, ORANGE), (1.0, GREEN)],
            mappings=mapping({0.0: ("not shown", ORANGE), 1.0: ("yes", GREEN)}),
            no_value=NONE_YET,
        ).span(8),
        graph(
            "Nats saved",
            "Nats that the recommended recipe saves on the test, with its 95 % interval. best trial: nats of the "
            "best full trial on the documents to choose by. It is usually a little higher, because it is the best of "
            "many.",
            [
                Query(saved("saved_nats"), "{{model}} {{recipe}}"),
                Query(saved("saved_high_nats"), "{{model}} {{recipe}} upper 95 %"),
                Query(saved("saved_low_nats"), "{{model}} {{recipe}} lower 95 %"),
                Query(saved("best_saved_nats"), "{{model}} {{recipe}} best trial"),
            ],
            unit="suffix: nats",
            span=24,
            steps=[(None, RED), (0.0, GREEN)],
            styles=[
                Style("/ (upper|lower) 95 %$/", dashed=True, width=1, pattern=True),
                Style("/ best trial$/", colour=GREY, pattern=True),
            ],
            no_value=NONE_YET,
        ),
        graph(
            "Trials done",
            "Trials per hour that were measured or refused. The report gives the reason of each refusal.",
            [Query("sum by (outcome) (rate(hemostat_mitigate_trials_total[$__rate_interval])) * 3600", "{{outcome}}")],
            unit="suffix: trials/h",
            span=12,
            minimum=0,
            styles=[Style("refused", colour=ORANGE), Style("measured", colour=GREEN)],
            no_value="no worker",
        ),
        graph(
            "Seconds per trial",
            "Time to make and measure one trial: median and 95th percentile of cheap trials (a part of the text) and "
            "full trials.",
            [Query(quantile(0.5), "{{rung}} p50"), Query(quantile(0.95), "{{rung}} p95")],
            unit="s",
            span=12,
            minimum=0,
            no_value="no trial in this time",
        ),
    ]


def build() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    board = frame(
        "What did treatment save?",
        UID,
        "Trials of mitigate jobs, and the nats that they saved.",
        panels(),
        choose="model",
        label="Candidate",
        of="hemostat_mitigate_helped",
    )
    made: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    made.setdefault("annotations", {}).setdefault("list", [])
    return made


def render() -> str:
    """The text of the checked-in file."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
