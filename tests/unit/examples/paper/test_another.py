"""The claims on a user's model and text."""

import json

import pytest

from app.jobs.parsing import parse_submission
from examples.paper.another import Subject
from examples.paper.claim import claims, jobs_of, request

REQUESTS = {name: request(name) for name in jobs_of(claims())}
TEXT = {"source": "inline", "documents": [{"id": "d", "text": "one two three"}]}


@pytest.mark.parametrize("job", REQUESTS)
def test_every_job_runs_on_another_model(job: str) -> None:
    moved = parse_submission(json.dumps(Subject("llama").request(REQUESTS[job])).encode())
    assert moved.reference.model == moved.candidate.model == "llama"
    assert "smollm2" not in moved.model_dump_json()


def test_the_demo_is_measured_as_the_files_say() -> None:
    assert all(Subject().request(asked) == asked for asked in REQUESTS.values())


def test_a_text_takes_the_place_of_what_is_scored_and_of_nothing_else() -> None:
    subject = Subject(text=TEXT)
    assert subject.request(REQUESTS["rtn-bits"])["text"] == TEXT
    calibrated = subject.request(REQUESTS["four-bits-calibrated"])
    assert calibrated["text"] == REQUESTS["four-bits-calibrated"]["text"]
    assert calibrated["test_text"] == TEXT
    assert subject.request(REQUESTS["wanda-sparsity-classes"])["text"]["corpus"] == "classes"
