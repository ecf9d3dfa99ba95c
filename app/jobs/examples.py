"""What the routes' answers look like, for the OpenAPI page."""

from typing import Any, Final

JOB_ID: Final = "diag_01M89D9HJWGEE9A2EB6NKQX32W"
OTHER_ID: Final = "diag_01M89D8ZK31T2W6G9XY0V4QH5N"
URL: Final = f"/v1/diagnosis/jobs/{JOB_ID}"

REQUEST: Final[dict[str, Any]] = {
    "kind": "compare",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}],
    },
    "text": {
        "source": "inline",
        "documents": [{"id": "d1", "domain": "prose", "text": "The river had been high all spring."}],
    },
    "window": 512,
    "seed": 0,
    "metadata": {"commit": "4f2c1a9"},
}

CALIBRATE: Final[dict[str, Any]] = {
    "kind": "calibrate",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "tokens": 25000,
    "calibrators": ["temperature", "lowrank", "lowrank+confidence"],
    "deployment": "smollm2-rtn4",
}
ATTRIBUTE: Final[dict[str, Any]] = {
    "kind": "attribute",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "levels": ["layer", "module"],
    "tokens": 4096,
    "budget": 48,
    "top": 6,
}
MITIGATE: Final[dict[str, Any]] = {
    "kind": "mitigate",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 3}]},
    "budget": {"bytes": 110_000_000, "added_latency": 0.1},
    "treatments": ["quantize.dynamic", "repair.lowrank", "protect"],
    "trials": 12,
}
SWEEP: Final[dict[str, Any]] = {
    "kind": "sweep",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [{"type": "prune.wanda", "sparsity": {"sweep": {"from": 0.1, "to": 0.8, "points": 29}}}],
    },
    "budget": 12,
}
TASKS: Final[dict[str, Any]] = {
    "kind": "tasks",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "tasks": [
        {"source": "shipped"},
        {"source": "file", "format": "hellaswag", "path": "tasks/hellaswag_val.jsonl", "items": 1000},
    ],
    "margin": 0.02,
}
TRAJECTORY: Final[dict[str, Any]] = {
    "kind": "trajectory",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "candidates": [{"model": "smollm2-135m", "recipe": [{"type": "prune.wanda", "sparsity": 0.5}]}],
    "decoders": [{"name": "greedy"}, {"name": "top_p", "p": 0.9}, {"name": "contrastive"}],
    "prompts": 32,
    "tokens": 128,
}
SURFACE: Final[dict[str, Any]] = {
    "kind": "surface",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [
            {"type": "prune.wanda", "sparsity": {"sweep": [0.2, 0.35, 0.5, 0.6]}},
            {"type": "quantize.rtn", "bits": {"sweep": [8, 6, 4, 3]}},
        ],
    },
    "orders": "both",
    "contour": {"measure": "kl", "level": 0.05},
}
REQUESTS: Final[dict[str, Any]] = {
    "compare": {"summary": "How far is the candidate from the reference?", "value": REQUEST},
    "calibrate": {"summary": "Fit, choose and prove a correction of the candidate", "value": CALIBRATE},
    "attribute": {"summary": "Which layer, module, head or expert does the damage, and why?", "value": ATTRIBUTE},
    "mitigate": {"summary": "Find what makes the candidate better within a budget, and prove it", "value": MITIGATE},
    "sweep": {"summary": "How far may one knob be turned?", "value": SWEEP},
    "surface": {"summary": "Do the damages of two knobs add up, and how far may both go?", "value": SURFACE},
    "tasks": {"summary": "Which answers flip, and is the candidate equivalent?", "value": TASKS},
    "trajectory": {"summary": "What does the modification do to generated text?", "value": TRAJECTORY},
}

QUEUED: Final[dict[str, Any]] = {
    "id": JOB_ID,
    "object": "diagnosis.job",
    "kind": "compare",
    "status": "queued",
    "reference": {"model": "smollm2-135m"},
    "candidate": {
        "model": "smollm2-135m",
        "recipe": [
            {
                "layers": None,
                "modules": None,
                "type": "quantize.rtn",
                "bits": 4,
                "group_size": 64,
                "symmetric": False,
            }
        ],
    },
    "knobs": [],
    "text": "shipped",
    "test_text": None,
    "window": 512,
    "created_at": 1795612264.03,
    "started_at": None,
    "finished_at": None,
    "attempt": 0,
    "progress": {"phase": "queued", "done": 0, "total": 0},
    "error": None,
    "severity": None,
    "classes": [],
    "answer": None,
    "report_url": f"{URL}/report",
    "artifacts": [],
    "metadata": {"commit": "4f2c1a9"},
}
RUNNING: Final = QUEUED | {
    "status": "running",
    "attempt": 1,
    "started_at": 1795612265.1,
    "progress": {"phase": "candidate", "done": 34, "total": 100},
}
CANCELLING: Final = RUNNING | {"status": "cancelling"}
SUCCEEDED: Final = RUNNING | {
    "status": "succeeded",
    "finished_at": 1795612299.8,
    "progress": {"phase": "report", "done": 1, "total": 1},
    "severity": "severe",
    "classes": ["severe"],
    "artifacts": ["manifest.json", "tokens.parquet"],
}
PAGE: Final = {"object": "list", "data": [SUCCEEDED], "first_id": JOB_ID, "last_id": JOB_ID, "has_more": False}
QUEUE: Final = {"object": "diagnosis.queue", "status": "queued", "before": 1, "first": [RUNNING]}

ESTIMATE: Final = {
    "object": "diagnosis.estimate",
    "valid": True,
    "kind": "compare",
    "documents": 1,
    "tokens": 9,
    "reference_store_bytes": 10368,
    "checkpoint_bytes": 269060552,
    "seconds": 12.4,
    "assumptions": ["4 characters a token"],
}

EVENTS: Final = """\
retry: 1000

id: 1
event: state
data: {"type":"state","status":"queued","attempt":0,"at":1795612264.032832}

id: 2
event: state
data: {"type":"state","status":"running","attempt":1,"at":1795612265.101210}

id: 3
event: progress
data: {"type":"progress","progress":{"phase":"candidate","done":34,"total":100},"attempt":1,"at":1795612280.5}

: ping

id: 4
event: state
data: {"type":"state","status":"succeeded","attempt":1,"at":1795612299.8}

id: 5
event: end
data: {"type":"end","status":"succeeded","error":null,"at":1795612299.8}

"""

_MEAN: Final = {"mean": 0.326, "ci": [0.301, 0.354]}
# The head of a report; /v1/diagnosis/schemas/report has all of it.
REPORT_HEAD: Final = {
    "schema": "hemostat.report/1",
    "kind": "compare",
    "job": JOB_ID,
    "severity": "severe",
    "verdict": "The candidate is severely damaged: it loses 0.326 nats a token (95 % interval 0.301 to 0.354).",
    "tokens": 10220,
    "documents": 60,
    "divergence": {"kl": _MEAN | {"median": 0.12, "p90": 0.9, "p95": 1.3, "p99": 3.1, "max": 9.4, "unit": "nats"}},
    "noise_floor": {"kl": {"mean": 0.0, "ci": [0.0, 0.0]}},
    "top1_agreement": {"mean": 0.74, "ci": [0.73, 0.76]},
    "nonfinite_positions": 0,
}

ARTIFACTS: Final = {
    "object": "list",
    "data": [
        {
            "name": "manifest.json",
            "object": "diagnosis.artifact",
            "bytes": 91034,
            "media_type": "application/json",
            "url": f"{URL}/artifacts/manifest.json",
        },
        {
            "name": "tokens.parquet",
            "object": "diagnosis.artifact",
            "bytes": 524288,
            "media_type": "application/vnd.apache.parquet",
            "url": f"{URL}/artifacts/tokens.parquet",
        },
    ],
}
