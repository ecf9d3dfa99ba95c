"""`hemostat surface`: its request, and what is refused before anything runs."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import submitting as command
from app.cli.main import app
from app.contracts.errors import HemostatError
from app.jobs.parsing import parse_submission

BASE = ["surface", "-r", "m", "--recipe", "prune.magnitude:sparsity=0.5", "--recipe", "quantize.rtn:bits=8"]


def asked(monkeypatch, *arguments):
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "measure", lambda request, *_, **__: kept.append(request))
    result = CliRunner().invoke(app, [*BASE, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return kept[0]


def test_knobs_are_written_into_their_steps(monkeypatch):
    request = asked(
        monkeypatch, "--knob", "0.sparsity=0.2,0.5", "--knob", "1.bits=8,4,3", "--contour", "perplexity_ratio=1.1",
        "--both-orders", "--storage", "dense", "--margin", "0.02",
    )  # fmt: skip
    steps = request["candidate"]["recipe"]
    assert steps[0]["sparsity"] == {"sweep": [0.2, 0.5]}
    assert steps[1]["bits"] == {"sweep": [8, 4, 3]}
    parsed = parse_submission(json.dumps(request).encode())
    assert [knob.values for knob in parsed.knobs] == [(0.2, 0.5), (8, 4, 3)]
    assert (parsed.orders, parsed.storage, parsed.level) == ("both", "dense", 1.1)
    assert parsed.additive_margin == 0.02
    assert parsed.planned == 3 * 4 + 6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--contour", "kl"], "not MEASURE=LEVEL"),
        (["--contour", "kl=much"], "is not a number"),
        (["--knob", "bits=8,4"], "does not say which"),
        (["--knob", "7.bits=8,4"], "the recipe has 2 steps, and none of number 7"),
    ],
)
def test_bad_options_are_told(monkeypatch, arguments, told):
    with pytest.raises(HemostatError, match=told):
        asked(monkeypatch, *arguments)


@pytest.mark.parametrize("contour", ["perplexity_ratio=0.9", "perplexity_ratio=1", "perplexity=1"])
def test_a_level_that_no_loss_has_is_told_with_those_that_there_are(monkeypatch, contour):
    request = asked(monkeypatch, "--knob", "0.sparsity=0.2,0.5", "--knob", "1.bits=8,4", "--contour", contour)
    with pytest.raises(HemostatError) as refused:
        parse_submission(json.dumps(request).encode())
    assert refused.value.pointer == "/contour"
    assert "above 1" in refused.value.hint
