"""The case `calibrate` of `make bench`: the job that fits the usual corrections of the demo model at 4 bits, and what
they remove on the test documents."""

from __future__ import annotations

import time
from pathlib import Path

from app.kinds.calibrate.request import CalibrateRequest
from app.models.registry import register
from app.settings import Settings
from tests.bench.cases import MODEL, RECIPE, BenchContext
from tests.bench.rows import Row
from workers.calibration.job import calibrate
from workers.engine.room import EngineRoom


def bench_calibrate(home: Path) -> list[Row]:
    """Seconds of the job with its proof. Per calibrator: the raw KL, what is removed of it with its 95 % interval, and
    the share that this is, over all test documents of the fitted domains."""
    settings = Settings(home=home)
    register(settings.models_file, "smollm2-135m", MODEL)
    model = {"model": "smollm2-135m"}
    request = CalibrateRequest.model_validate(
        {"kind": "calibrate", "reference": model, "candidate": model | {"recipe": [RECIPE]}}
    )
    room = EngineRoom(settings)
    start = time.perf_counter()
    report = calibrate(request, BenchContext(settings, "calibrate"), room)
    rows = [
        Row("calibrate", "job", "seconds", time.perf_counter() - start, "s"),
        Row("calibrate", "job", "passed", float(report.test.passed), "yes=1"),
    ]
    for found in report.test.table:
        saved, ci = found.own.saved.mean, found.own.saved.ci
        assert saved is not None and ci is not None and found.own.saved_share is not None
        values = {
            "tokens": (found.own.tokens, "tokens"),
            "raw_kl": (found.own.raw.mean, "nats"),
            "removed": (saved, "nats"),
            "removed_low": (ci[0], "nats"),
            "removed_high": (ci[1], "nats"),
            "removed_share": (found.own.saved_share, "share"),
            "chosen": (float(found.chosen), "yes=1"),
        }
        rows += [
            Row("calibrate", found.calibrator, name, float(value or 0.0), unit)
            for name, (value, unit) in values.items()
        ]
    room.close()
    return rows
