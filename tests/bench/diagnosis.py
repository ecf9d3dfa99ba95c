"""Cases of `make bench` for the kinds that look further: a sweep of twelve points, and every layer attributed once.

Both are told in forward passes, so that machines can be compared: of the candidate through vLLM over the sweep's text
(the sweep's surgery and start stand apart), and of the reference through transformers over the attribution's tokens.
"""

import statistics
from pathlib import Path

import numpy as np

from app.contracts.requests.attribute import AttributeRequest
from app.contracts.requests.sweep import SweepRequest
from app.models.knobs import lift
from tests.bench.cases import MODEL, RECIPE, REPEATS, TOKENS, BenchContext, prepared, request, timed
from tests.bench.rows import Row
from workers.diagnosis.attribute.job import attribute
from workers.diagnosis.sweep.job import sweep
from workers.engine.room import EngineRoom
from workers.text.sources import load_documents
from workers.text.tokenization import load_tokenizer
from workers.text.windows import make_windows

POINTS = 12


def bench_sweep(home: Path) -> list[Row]:
    """Twelve sparsities by magnitude over 20,000 tokens, in one job."""
    settings = prepared(home, TOKENS)
    room = EngineRoom(settings)
    body = request().model_dump(mode="json", exclude={"kind", "candidate", "precision", "generate_tool_calls"})
    knob = {"sweep": {"from": 0.05, "to": 0.6, "points": POINTS}}
    asked = {"model": "smollm2-135m", "recipe": [{"type": "prune.magnitude", "sparsity": knob}]}
    shared = {name: body[name] for name in ("reference", "text", "window", "seed")}
    report = sweep(
        SweepRequest.model_validate(lift(shared | {"kind": "sweep", "candidate": asked})),
        BenchContext(settings, "sweep"),
        room,
    )
    seconds = report.provenance.seconds
    making = sum(point.seconds_making for point in report.points)
    measuring = sum(point.seconds_measuring for point in report.points)
    tokenizer = load_tokenizer(MODEL)
    documents = load_documents(request().text, settings=settings, tokenizer=tokenizer)
    windows = [np.asarray(window.tokens) for window in make_windows(documents, tokenizer, 512).windows]
    forward = statistics.median(
        timed(lambda: [None for _ in room.engine(MODEL, 512).score(windows)]) for _ in range(REPEATS)
    )
    room.close()
    floor = POINTS * forward
    rows = [
        Row("sweep", "12_points", "scored_tokens", report.tokens, "tokens"),
        Row("sweep", "12_points", "forward_seconds", forward, "s"),
        Row("sweep", "12_points", "making_seconds", making, "s"),
        Row("sweep", "12_points", "measuring_seconds", measuring, "s"),
        Row("sweep", "12_points", "forward_ratio", (seconds["points"] - making) / floor, "ratio"),
        Row("sweep", "12_points", "job_seconds", sum(seconds.values()), "s"),
    ]
    return rows + [Row("sweep", "12_points", f"{phase}_seconds", took, "s") for phase, took in seconds.items()]


def bench_attribute(home: Path) -> list[Row]:
    """Every layer of the demo model swapped once, one direction, over the default number of tokens."""
    settings = prepared(home, TOKENS)
    room = EngineRoom(settings)
    shared = request().model_dump(mode="json", include={"reference", "text", "window", "seed"})
    asked = AttributeRequest.model_validate(
        shared
        | {
            "kind": "attribute",
            "candidate": {"model": "smollm2-135m", "recipe": [RECIPE]},
            "levels": ["layer"],
            "directions": ["swap"],
            "internals": False,
        }
    )
    report = attribute(asked, BenchContext(settings, "attribute"), room)
    room.close()
    found = report.search
    assert found is not None
    assert report.subset is not None
    return [
        Row("attribute", "30_layers", "tokens", report.subset.windows * report.subset.length, "tokens"),
        Row("attribute", "30_layers", "forward_seconds", found.forward_seconds, "s"),
        Row("attribute", "30_layers", "search_seconds", found.seconds, "s"),
        Row("attribute", "30_layers", "search_forward_passes", found.seconds / found.forward_seconds, "passes"),
        Row("attribute", "30_layers", "counted_forward_passes", found.spent, "passes"),
        *(
            Row("attribute", "30_layers", f"{phase}_seconds", took, "s")
            for phase, took in report.provenance.seconds.items()
        ),
    ]
