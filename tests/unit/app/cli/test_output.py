import re
from pathlib import Path

from app.cli.output import PHASES

WORKERS = Path(__file__).resolve().parents[4] / "workers"


def test_every_phase_that_a_job_reports_has_words() -> None:
    reported = {
        phase
        for file in WORKERS.rglob("*.py")
        for phase in re.findall(r'context\.progress\(\s*"(\w+)"', file.read_text(encoding="utf-8"))
    }
    assert {"text", "modify", "fit", "choose", "test", "report"} <= reported
    assert reported <= set(PHASES)
