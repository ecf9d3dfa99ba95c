"""The files of the claims: each is whole, its jobs are requests that the service takes, its rule is there."""

import json

import pytest

from app.jobs.parsing import parse_submission
from examples.paper.claim import FOLDER, claims, jobs_of, request
from examples.paper.rulings import RULINGS

CLAIMS = claims()
JOBS = jobs_of(CLAIMS)


def test_every_job_is_a_request_that_some_claim_needs():
    assert {path.stem for path in (FOLDER / "jobs").glob("*.json")} == set(JOBS)
    for job in JOBS:
        submission = parse_submission(json.dumps(request(job)).encode())
        assert submission.reference.model == submission.candidate.model == "smollm2-135m", job
        assert submission.text.source == "shipped", job
        assert not submission.dry_run, job


def test_claims_are_told_apart_and_every_rule_is_of_one():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert sorted(claim.ruling for claim in CLAIMS) == sorted(RULINGS)


def test_a_job_of_several_claims_is_run_once_where_it_is_first_needed():
    first, other = (next(one for one in CLAIMS if one.id == name) for name in ("half-size-order", "gradient-pruning"))
    assert set(first.jobs) & set(other.jobs) == {"half-wanda"}
    assert jobs_of((first, other)) == (*first.jobs, "gradient-half")


@pytest.mark.parametrize("place", ["decoders/text/document", "decoders/kind"])
def test_words_that_point_to_no_number_of_a_job_are_refused(tmp_path, place):
    (tmp_path / "claims").mkdir()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "decoders.json").write_text(json.dumps(request("decoders")))
    good = (FOLDER / "claims" / "13-decoding-tokens.json").read_text()
    (tmp_path / "claims" / "01.json").write_text(good)
    assert claims(tmp_path)[0] == next(claim for claim in CLAIMS if claim.id == "decoding-tokens")
    (tmp_path / "claims" / "01.json").write_text(good.replace("decoders/text/documents", place))
    with pytest.raises(ValueError, match=f"no number at {place.partition('/')[2]}"):
        claims(tmp_path)
