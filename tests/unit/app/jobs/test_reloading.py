"""What a browser that follows a job is told while the service cannot answer: here there is no Redis."""

import httpx
import pytest

from app.jobs.ids import new_job_id
from app.jobs.record import JOBS_PATH
from app.main import create_app
from app.settings import Settings
from app.web.job import RELOAD_S

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JOB = f"{JOBS_PATH}/{new_job_id()}"


@pytest.fixture
async def http(tmp_path):
    app = create_app(Settings(home=tmp_path, requests_per_minute=1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client
    await app.state.hemostat.redis.aclose()


async def test_a_browser_that_follows_a_job_comes_back_after_a_503_and_a_429(http):
    answers = [await http.get(JOB, headers=BROWSER) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 429]
    assert [answer.headers["refresh"] for answer in answers] == [str(RELOAD_S)] * 2
    assert all(answer.headers["retry-after"] for answer in answers)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", JOB, {}),
        ("GET", JOB, {"accept": "application/json"}),
        ("GET", f"{JOB}/report", BROWSER),
        ("GET", JOBS_PATH, BROWSER),
        ("DELETE", JOB, BROWSER),
    ],
    ids=["a program's job", "JSON", "a report", "a list", "deletion"],
)
async def test_nothing_else_is_sent_again_by_itself(http, method, path, headers):
    answer = await http.request(method, path, headers=headers)
    assert answer.status_code == 503
    assert "refresh" not in answer.headers


async def test_a_job_that_there_cannot_be_is_not_asked_for_again(http):
    answer = await http.get(f"{JOBS_PATH}/diag_1", headers=BROWSER)
    assert answer.status_code == 404
    assert "refresh" not in answer.headers
