"""What the routes' requests and answers look like, for the OpenAPI page."""

from typing import Any, Final

ID: Final = "dep_01M89D9HJWGEE9A2EB6NKQX32W"
URL: Final = f"/v1/deployments/{ID}"
JOB_ID: Final = "diag_01M89D9HK3ZV1Q2N7X0M4T8R5C"
VERSION: Final = "cal-5f0c2d9a4b71e836"
_STEP: Final = {"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}

REQUEST: Final[dict[str, Any]] = {
    "name": "smollm2-135m-rtn4",
    "model": {"model": "smollm2-135m", "recipe": [_STEP]},
    "reference": {"model": "smollm2-135m"},
    "calibration": "auto",
    "shadow_rate": 0.01,
    "replicas": 1,
    "sampling": {"temperature": 0.7, "top_p": 0.9},
}
PATCH: Final = {"shadow_rate": 0.05, "replicas": 2}
PROMOTE: Final = {"version": VERSION, "reason": "better on our own documents"}
ROLLBACK: Final = {"reason": "answers to short prompts got worse"}

STARTING: Final[dict[str, Any]] = {
    "id": ID,
    "object": "deployment",
    "name": "smollm2-135m-rtn4",
    "model": {"model": "smollm2-135m", "recipe": [{"layers": None, "modules": None, **_STEP}]},
    "reference": {"model": "smollm2-135m"},
    "repair": None,
    "calibration": "auto",
    "active_version": "identity",
    "previous_version": None,
    "activated_at": None,
    "fit_job": JOB_ID,
    "fit_reason": "",
    "shadow_rate": 0.01,
    "shadow_tokens_per_second": 200.0,
    "drift_threshold": 0.36,
    "alpha": 0.01,
    "replicas": 1,
    "max_model_len": 2048,
    "verify": False,
    "sampling": {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": None,
        "min_p": None,
        "presence_penalty": None,
        "frequency_penalty": None,
        "repetition_penalty": None,
    },
    "state": "starting",
    "reason": "0 of 1 replica is ready: loading the weights",
    "promotions": 0,
    "rollbacks": 0,
    "running": [],
    "shadow": None,
    "created_at": 1795612264.03,
    "updated_at": 1795612264.03,
    "metadata": {},
}
_REPLICA: Final[dict[str, Any]] = {
    "id": "serve-0",
    "role": "serve",
    "state": "ready",
    "reason": "",
    "url": "http://127.0.0.1:40101",
    "engine_url": "http://127.0.0.1:40102",
    "metrics_urls": ["http://127.0.0.1:40101/metrics", "http://127.0.0.1:40102/metrics"],
    "versions": ["identity", VERSION],
    "host": "gpu-1",
    "device": "0",
    "pid": 4711,
    "started_at": 1795612265.0,
    "seen_at": 1795612400.2,
}
_SHADOW: Final[dict[str, Any]] = {
    "drift": "ok",
    "reason": "",
    "threshold": 0.36,
    "e_value": 0.4,
    "quiet_limit": 0.25,
    "e_value_needed": 400.0,
    "alarms": 0,
    "divergence": {
        "raw": {"mean": 0.326, "low": 0.301, "high": 0.354},
        "calibrated": {"mean": 0.221, "low": 0.204, "high": 0.24},
        "engine": {"mean": 0.0016, "low": 0.0014, "high": 0.0018},
        "saved": {"mean": 0.105, "low": 0.093, "high": 0.118},
        "top1_agreement_raw": 0.74,
        "top1_agreement_calibrated": 0.77,
        "requests": 212,
        "tokens": 18144,
    },
    "last_observation_at": 1795612398.0,
    "trial": None,
    "updated_at": 1795612399.0,
}
READY: Final = STARTING | {
    "active_version": VERSION,
    "previous_version": "identity",
    "activated_at": 1795612352.6,
    "state": "ready",
    "reason": "",
    "promotions": 1,
    "running": [_REPLICA],
    "shadow": _SHADOW,
    "updated_at": 1795612352.6,
}
FROZEN: Final = READY | {"calibration": "frozen"}
SCALED: Final = READY | PATCH | {"state": "degraded", "reason": "1 of 2 replicas are ready."}
ROLLED_BACK: Final = READY | {"active_version": "identity", "previous_version": None, "rollbacks": 1}
DRAINING: Final = READY | {"state": "draining", "reason": "It is being deleted; processes still running: 2."}
LIST: Final = {"object": "list", "data": [READY]}

_CREATED: Final = {
    "type": "created",
    "at": 1795612264.03,
    "reason": "",
    "version": "identity",
    "previous": None,
    "evidence": {},
}
_PROMOTED: Final = {
    "type": "promoted",
    "at": 1795612352.6,
    "reason": "It is better on test documents of every domain.",
    "version": VERSION,
    "previous": "identity",
    "evidence": {"saved_low_nats": 0.071, "domains": 4},
}
EVENT_PAGE: Final = {
    "object": "list",
    "data": [_CREATED | {"id": 1}, _PROMOTED | {"id": 2}],
    "last_id": 2,
    "has_more": False,
}
EVENTS: Final = f"""\
retry: 1000

id: 1
event: created
data: {{"type":"created","at":1795612264.03,"reason":"","version":"identity","previous":null,"evidence":{{}}}}

: ping

id: 2
event: promoted
data: {{"type":"promoted","at":1795612352.6,"reason":"","version":"{VERSION}","previous":"identity","evidence":{{}}}}

"""
TARGETS: Final = [
    {
        "targets": ["127.0.0.1:40102"],
        "labels": {
            "__scheme__": "http",
            "__metrics_path__": "/metrics",
            "deployment": "smollm2-135m-rtn4",
            "role": "serve",
        },
    }
]
