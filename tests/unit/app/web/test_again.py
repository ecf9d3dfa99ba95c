"""What is said to be found again of a job that was cancelled."""

import pytest

from app.web.again import kept
from app.web.job import render_job
from tests.support.html import tree
from tests.unit.app.web.test_home import job


@pytest.mark.parametrize(
    ("status", "attempt", "told"),
    [("cancelled", 1, True), ("cancelled", 0, False), ("failed", 1, False), ("running", 1, False)],
)
def test_a_job_that_was_cancelled_once_it_had_begun_says_what_the_same_job_finds_again(status, attempt, told):
    text = kept({"status": status, "attempt": attempt})
    assert bool(text) is told
    page = render_job(job(status=status, severity=None, attempt=attempt), None)
    whole = kept({"status": "cancelled", "attempt": 1})
    assert (whole in tree(page).one(id_="state").text) is told
