"""Measures the distance of `tests.support.hellinger` and shows it; prints what it found, as JSON."""

# isort: skip_file
import tests.support.hellinger  # noqa: F401 - before everything that reads the list

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from app.contracts.request import Thresholds
from app.kinds.compare.report import CompareReport
from app.kinds.compare.difference import render_difference
from app.reports.render import as_markdown, render
from tests.support.attempts import Context
from tests.support.distributions import case, logits64, make_head
from tests.support.reports import compare_report
from tests.support.terminal import printed
from workers.calibration.measure import values_of
from workers.diagnosis.diff.answer import Side, compare_reports
from workers.diagnosis.diff.tokens import FLAGS, read
from workers.distributions.divergence import Divergence
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.gauges import send_comparison
from workers.measuring.points.record import record_of
from workers.measuring.summary import summarize
from workers.telemetry import Telemetry

DOCUMENTS, EACH = 12, 10


def reported(values: TokenValues, where: Positions) -> CompareReport:
    """A report over these values; what has no values of its own is drawn."""
    blocks = summarize(values, where, ["prose"] * DOCUMENTS, window=EACH).blocks()
    drawn = {name: value for name, value in compare_report().items() if name not in {"schema", "kind"}}
    return CompareReport(**drawn | blocks)


def main(folder: Path) -> dict[str, Any]:
    """What every place says of it."""
    count = DOCUMENTS * EACH
    given = case(make_head(320, 16, spread=3.0), make_head(320, 16, spread=3.0), count, by=0.2)
    values = Divergence(given.reference, given.candidate, precision="float32", device="cpu")(
        given.reference_TD, given.candidate_TD, given.next_T
    )
    logits = logits64(given.reference, given.reference_TD), logits64(given.candidate, given.candidate_TD)
    p, q = (part.softmax(1) for part in logits)
    document = np.repeat(np.arange(DOCUMENTS), EACH)
    place = np.tile(np.arange(EACH), DOCUMENTS)
    where = Positions(document, document, place, place, np.asarray(given.next_T))
    names = [f"d{index}" for index in range(DOCUMENTS)]
    report = reported(values, where)
    data = report.model_dump(mode="json", by_alias=True)
    flags = {column: np.zeros(count, dtype=np.bool_) for column in FLAGS.values()}
    sides = []
    for name, scale in (("one", 1.0), ("other", 0.5)):
        half = TokenValues(**vars(values) | {"hellinger": scale * values.hellinger, "kl": scale * values.kl})
        half.to_parquet(folder / f"{name}.parquet", where, names, ["prose"] * DOCUMENTS, flags=flags)
        sides.append(Side(name, report, read(folder / f"{name}.parquet", name=name)))
    diff = compare_reports(sides, by="hellinger")
    telemetry, context = Telemetry(), Context(None, folder)
    send_comparison(report, context)
    for name, value, labels in context.samples:
        telemetry.observe(name, value, **labels)
    point = record_of(values, where, DOCUMENTS, floor=0.0, thresholds=Thresholds(), seed=0)
    return {
        "exact": float(0.5 * ((p.sqrt() - q.sqrt()) ** 2).sum(1).mean()),
        "tokens": float(pq.read_table(folder / "one.parquet")["hellinger"].to_numpy().mean()),
        "calibration": float(values_of(*logits, given.next_T).hellinger.mean()),
        "report": data["divergence"]["hellinger"]["mean"],
        "domain": data["domains"]["prose"]["divergence"]["hellinger"]["mean"],
        "band": data["by_position"][0]["hellinger"]["mean"],
        "point": point.divergence.hellinger.mean,
        "metric": telemetry.value("distance_mean", **report.labels(), distance="hellinger"),
        "diff": [row.difference.mean for row in diff.pairs[0].differences if row.measure == "hellinger"],
        "pages": [render(data), printed(data, details=True), as_markdown(data), render_difference(diff)],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
