"""The files of the claims: each is whole, its jobs are requests that the service takes, its rule is there."""

import json
import re

import pytest
from pydantic import ValidationError

from app.contracts.decoding import DECODERS
from app.jobs.parsing import parse_submission
from app.kinds.trajectory.words import label
from examples.paper.claim import FOLDER, claims, jobs_of, request
from examples.paper.rulings import RULINGS

CLAIMS = claims()
JOBS = jobs_of(CLAIMS)


@pytest.mark.parametrize("job", sorted(path.stem for path in (FOLDER / "jobs").glob("*.json")))
def test_every_job_is_a_request_that_some_claim_needs(job):
    submission = parse_submission(json.dumps(request(job)).encode())
    assert submission.reference.model == submission.candidate.model == "smollm2-135m"
    assert submission.text.source == "shipped"
    assert not submission.dry_run
    assert job in JOBS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_names_jobs_that_are_there_and_a_rule(claim):
    assert all((FOLDER / "jobs" / f"{job}.json").is_file() for job in claim.jobs)
    assert claim.ruling in RULINGS
    for outcome in ("Confirmed:", "Refuted:", "not identifiable"):
        assert outcome in claim.rule


def test_claims_are_told_apart_and_every_rule_is_of_one():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert sorted(claim.ruling for claim in CLAIMS) == sorted(RULINGS)


def test_a_job_of_several_claims_is_run_once_where_it_is_first_needed():
    first, second = CLAIMS[0], CLAIMS[1]
    assert set(first.jobs) & set(second.jobs) == {"wanda-sparsity"}
    assert jobs_of((first, second)) == (*first.jobs, "sparsegpt-sparsity")


def test_calibrated_steps_are_short_enough_for_a_laptop():
    for job in JOBS:
        asked = request(job)
        steps = [*asked["candidate"]["recipe"], *(s for c in asked.get("candidates", ()) for s in c["recipe"])]
        assert all(step["calibration_windows"] <= 16 for step in steps if "calibration_windows" in step)
        assert asked.get("test_text", asked["text"])["documents"] == 24


def test_words_about_prompts_are_those_of_the_job():
    """A document gives one prompt, and there are fewer documents than the job would take."""
    asked = parse_submission(json.dumps(request("decoders")).encode())
    assert asked.text.documents <= asked.prompts
    told = {claim.id: claim for claim in CLAIMS}
    words = told["decoding-tokens"].measured
    assert f"{asked.text.documents} prompts (the first {asked.prompt_tokens} tokens of each document)" in words
    assert f"{asked.tokens} tokens at most" in words
    assert f"the same {asked.text.documents} prompts" in told["decoding-distributions"].measured
    assert not any(sign in claim.model_dump_json()[1:-1] for claim in CLAIMS for sign in "{}")


@pytest.mark.parametrize("name", ["decoding-tokens", "decoding-distributions"])
def test_words_about_decoders_name_all_that_were_not_asked(name):
    told = next(claim for claim in CLAIMS if claim.id == name).limits
    asked = [decoder["name"] for decoder in request("decoders")["decoders"]]
    assert (len(asked), len(DECODERS)) == (4, 13)
    left = told.split("These were not asked: ")[1].split(". ")[0]
    for decoder in DECODERS:
        assert (re.search(rf"\b{re.escape(label(decoder))}\b", left) is None) == (decoder in asked), decoder


@pytest.mark.parametrize("name", ["attention", "cascade"])
def test_words_about_what_was_looked_at_inside_are_those_of_each_job(name):
    """Each looks at as much of the text, which is less than the scored tokens that the page lists beside it."""
    told = next(claim for claim in CLAIMS if claim.id == name)
    (tokens,) = {request(job)["tokens"] for job in told.jobs}
    assert f"a part of the text, about {tokens} tokens" in told.measured


@pytest.mark.parametrize("place", ["decoders/text/document", "decoders/text", "decoders/kind", "decoders/seed/more"])
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


def test_a_misspelt_field_of_a_claim_is_refused(tmp_path):
    (tmp_path / "claims").mkdir()
    good = json.loads(next(iter(sorted((FOLDER / "claims").glob("*.json")))).read_text())
    (tmp_path / "claims" / "01.json").write_text(json.dumps(good | {"jobs": list(good["jobs"]), "rules": "x"}))
    with pytest.raises(ValidationError, match="rules"):
        claims(tmp_path)
