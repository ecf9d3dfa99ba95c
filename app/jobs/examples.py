"""What the routes' answers look like, for the OpenAPI page."""

from typing import Any, Final

from app.kinds.registry import KINDS

JOB_ID: Final = "diag_01M89D9HJWGEE9A2EB6NKQX32W"
OTHER_ID: Final = "diag_01M89D8ZK31T2W6G9XY0V4QH5N"
URL: Final = f"/v1/diagnosis/jobs/{JOB_ID}"


REQUESTS: Final[dict[str, Any]] = {
    name: {"summary": kind.question, "value": kind.example} for name, kind in KINDS.items()
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
QUEUE: Final = {
    "object": "diagnosis.queue",
    "status": "queued",
    "before": 1,
    "first": {"id": JOB_ID, "kind": "compare"},
}

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
    "verdict": "The candidate is severely damaged: it loses 0.326 nats per token (95 % interval 0.301 to 0.354).",
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
