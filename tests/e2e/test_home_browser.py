"""The page at the root in a real browser: it fits, is legible in both themes, and asks for nothing."""

from pathlib import Path

from playwright.sync_api import Browser

from app.contracts.errors import ErrorCode
from app.contracts.job import Progress, job_error
from app.home import MISSING, PLACES
from app.web.home import render_home
from app.web.job import render_job
from tests.support.browser import look
from tests.unit.app.gateway.test_replicas import deployment
from tests.unit.app.web.test_home import job

SWEPT = {"kind": "sweep", "knobs": [{"step": 0, "field": "bits", "values": [8, 6, 4]}]}
POINTS = Progress(phase="points", done=830, total=1300)
AHEAD = job(id="diag_01M89D9HJWGEE9A2EB6NKQX32W", kind="sweep", status="running", severity=None, progress=POINTS)
PAGES = {
    "full": render_home(
        [
            job(id="diag_01M89D9HJWGEE9A2EB6NKQX32W", kind="surface", severity="none", text="hub:a/" + "b" * 60),
            job(**SWEPT),
            job(status="failed", severity=None),
            job(status="running", severity=None, text="inline:3", window=None, progress=POINTS),
        ],
        [deployment(name="a-deployment-with-quite-a-long-name-0123456789")],
        PLACES,
    ),
    "running": render_job(
        job(status="running", severity=None, progress=Progress(phase="candidate", done=34, total=100)),
        "window 34 of 100",
    ),
    "sweeping": render_job(AHEAD.model_copy(update={"started_at": 0.0}), None, now=200.0),
    "queued": render_job(job(status="queued", severity=None), None),
    "behind": render_job(job(status="queued", severity=None), None, "7 jobs before it"),
    "cancelled": render_job(
        job(
            kind="trajectory",
            status="cancelled",
            severity=None,
            attempt=1,
            started_at=0.0,
            finished_at=115.0,
            progress=Progress(phase="generate", done=2472, total=53248),
        ),
        None,
    ),
    "failed": render_job(
        job(
            status="failed",
            severity=None,
            error=job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, "It wanted 9 GiB.", "Use less."),
        ),
        "starting the engine",
    ),
    "succeeded": render_job(job(**SWEPT), "writing the report"),
    "empty": render_home([], [], PLACES),
    "away": render_home([], [], PLACES, missing=MISSING),
}


def test_it_fits_is_legible_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    for name, page in PAGES.items():
        file = tmp_path / f"{name}.html"
        file.write_text(page, encoding="utf-8")
        look(browser, file)
