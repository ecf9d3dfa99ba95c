"""Whatever a request asks, the command that a report gives asks it too: every field of every kind.

The oracle is the command line itself: it is run up to the point where it would send its request.
"""

import json
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import submitting
from app.cli.main import app
from app.jobs.parsing import parse_submission
from app.kinds.compare.report import CompareReport
from app.kinds.registry import KINDS
from app.kinds.surface.request import SurfaceRequest
from app.reports.reproduce import reproduction
from tests.support.reports import compare_report, draw

Json = dict[str, Any]
DOCUMENT = {"id": "a", "domain": "prose", "text": "A word."}
PRUNE = {"type": "prune.wanda", "sparsity": 0.1}
ROUND = {"type": "quantize.rtn", "bits": 8}
SPARSITIES = {"step": 0, "field": "sparsity", "values": [0.1, 0.2]}
BITS = {"step": 1, "field": "bits", "values": [8, 4]}
FILE = {"source": "file", "format": "mmlu", "path": "m.csv"}
HARNESS = {"source": "harness", "task": "arc_easy", "path": "arc/easy.jsonl"}

# The least that each kind can be asked with.
BASES: dict[str, Json] = {kind: {"candidate": {"model": "b", "recipe": [PRUNE]}} for kind in KINDS}
BASES["sweep"] |= {"knobs": [SPARSITIES]}
BASES["surface"] = {"candidate": {"model": "b", "recipe": [PRUNE, ROUND]}, "knobs": [SPARSITIES, BITS]}
TEXTS: list[Json] = [
    {"source": "shipped", "documents": 12},
    {"source": "shipped", "corpus": "calibration"},
    {"source": "shipped", "corpus": "calibration", "documents": 3},
    {"source": "shipped", "corpus": "classes"},
    {"source": "shipped", "corpus": "classes", "documents": 3},
    {"source": "shipped"},
    {"source": "self", "tokens": 300},
    {"source": "self", "temperature": 0.7},
    {"source": "file", "path": "corpus", "domain": "prose"},
    {"source": "inline", "documents": [DOCUMENT]},
    *(
        {"source": "hub", "dataset": "a/b"} | other
        for other in (
            {},
            {"config": "c"},
            {"split": "train"},
            {"column": "body"},
            {"revision": "r"},
            {"documents": 7},
            {"domain": "web"},
        )
    ),
]
EVERY: list[Json] = [
    {"window": 128},
    {"seed": 2**62 + 1},
    {"allow_overlap": True},
    {"self_check": True},
    {"thresholds": {"mild": 0.0123456789}},
    {"thresholds": {"moderate": 0.1, "severe": 0.25, "collapse": 2.0}},
    *({"text": text} for text in TEXTS),
]
OWN: dict[str, list[Json]] = {
    "compare": [
        {"precision": "float32"},
        {"store_text": True},
        {"store_text": False},
        {"generate_tool_calls": True},
        {"generate_tool_calls": {"prompts": 8}},
        {"generate_tool_calls": {"max_tokens": 64}},
        *({"generate_tool_calls": {"text": text}} for text in TEXTS),
    ],
    "attribute": [
        {"levels": ["layer", "heads"]},
        {"layers": [0, 1, 5]},
        {"directions": ["swap"]},
        {"tokens": 1_234_567},
        {"budget": 12.3456789},
        {"top": 3},
        {"twins": 2},
        {"internals": False},
    ],
    "sweep": [
        {"knobs": [{"step": 0, "field": "pattern", "values": ["2:4", "4:8"]}]},
        {"budget": 2},
        {"bounds": {"a": [0.5, 2.00000001], "b": [None, 1.0], "s0": [0.1, None], "k1": [-3.5, 4], "k2": [0, 1e-9]}},
    ],
    "surface": [
        {"orders": "both"},
        {"contour": {"measure": "kl", "level": 0.12345678}},
        {"contour": {"measure": "perplexity_ratio"}},
        {"margin": 0.0123456789},
        {"storage": "dense"},
    ],
    "trajectory": [
        {"candidates": [{"model": "c"}, {"model": "b", "recipe": [ROUND]}, {"model": "d", "recipe": [PRUNE, ROUND]}]},
        {"decoders": [{"name": "greedy"}, {"name": "top_p", "p": 0.5}]},
        {"shapings": []},
        {"shapings": [{"name": "top_k", "k": 7}]},
        {"prompts": 3},
        {"prompt_tokens": 9},
        {"tokens": 33},
        {"chat": True},
        {"store_text": True},
    ],
    "tasks": [
        {"tasks": [{"source": "shipped", "items": 30}, FILE]},
        {"tasks": [FILE | {"name": "other", "items": 7, "shots": 2, "examples": "dev.csv", "metric": "acc"}]},
        {"tasks": [{"source": "file", "format": "gsm8k", "path": "g.jsonl", "max_tokens": 99}]},
        {"tasks": [FILE | {"path": "a,b.csv"}]},
        {"tasks": [HARNESS]},
        {"tasks": [HARNESS | {"shots": 3, "examples": "dev.jsonl", "metric": "acc", "filter": "none", "items": 9}]},
        {"tasks": [HARNESS | {"shots": 0, "max_tokens": 30, "name": "other"}]},
        {"margin": 0.0123456789},
        {"shown": 0},
        {"store_text": False},
    ],
    "mitigate": [
        {"test_text": {"source": "shipped", "corpus": "calibration"}},
        *({"calibration": text} for text in TEXTS),
        {"calibration_windows": 7},
        {"calibration_window": 99},
        {"budget": {"bytes": 123_456_789}},
        {"budget": {"bits_per_weight": 4.123456789, "added_latency": 0.1}},
        {"treatments": ["protect", "norm.tweak"]},
        {"trials": 3},
        {"export": "checkpoint"},
    ],
    "calibrate": [
        *({"test_text": text} for text in TEXTS),
        {"fit_domains": ["prose", "code"]},
        {"tokens": 1234},
        {"calibrators": ["temperature", "lowrank+confidence"]},
        {"tolerance": 0.00123456789},
        {"deployment": "d"},
    ],
}
# What a request keeps and no command need say: notes, and a field that its kind does not use.
UNSAID: dict[str, set[str]] = {kind: {"metadata", "timeout_s"} for kind in KINDS}
UNSAID["trajectory"] |= {"window"}
UNSAID["sweep"] |= {"self_check"}
UNSAID["surface"] |= {"self_check"}


def made(kind, change):
    body = {"kind": kind, "reference": {"model": "a"}} | BASES[kind] | change
    if "knobs" in change:  # the recipe holds the first value of each
        (knob,) = change["knobs"]
        body["candidate"] = {"model": "b", "recipe": [{"type": "prune.wanda", knob["field"]: knob["values"][0]}]}
    return parse_submission(json.dumps(body).encode())


def told(request):
    """What is asked; the contour by the level that it comes to, said or not."""
    asked = request.model_dump(mode="json", exclude={"dry_run", *UNSAID[request.kind]})
    if isinstance(request, SurfaceRequest):
        asked["contour"]["level"] = request.level
    return asked


@pytest.fixture(scope="module")
def report():
    return CompareReport.model_validate(compare_report(draw(documents=3), store_text=False))


def command(report, request):
    kept = request.model_dump(mode="json", exclude={"dry_run"})
    return reproduction(report.model_copy(update={"request": kept})).cli


def sent(monkeypatch, line):
    """What the command line would ask."""
    kept: list[Json] = []
    monkeypatch.setattr(submitting, "measure", lambda request, *_, **__: kept.append(request))
    done = CliRunner().invoke(app, shlex.split(line.replace("\\\n", " "))[1:])
    assert done.exit_code == 0, (done.output, done.exception)
    return parse_submission(json.dumps(kept[0]).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_asks_for_all_that_was_asked(report, monkeypatch, tmp_path, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DOCUMENTS.jsonl").write_text(json.dumps(DOCUMENT))
    for change in ({}, *EVERY, *OWN[kind]):
        if not set(change) & UNSAID[kind]:
            request = made(kind, change)
            assert told(sent(monkeypatch, command(report, request))) == told(request), change


@pytest.mark.parametrize(
    ("kind", "change", "option"),
    [
        ("compare", {"generate_tool_calls": True}, "--generate-tool-calls"),
        ("compare", {"text": {"source": "shipped", "corpus": "classes"}}, "--text classes"),
        ("compare", {"text": {"source": "shipped", "corpus": "classes", "documents": 3}}, "--text classes:3"),
        *((kind, {}, f"hemostat {kind} ") for kind in KINDS),
        *((kind, {"allow_overlap": True}, " --allow-overlap") for kind in KINDS),
    ],
)
def test_what_has_an_option_is_said_by_it(report, kind, change, option):
    line = command(report, made(kind, change))
    assert option in line
