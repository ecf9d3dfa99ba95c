"""What to do about each error code: the default hint of a problem, /errors/CODE, `hemostat errors`, and the docs."""

from typing import Any, Final

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.models.nearest import nearest

GUIDE: Final[dict[ErrorCode, str]] = {
    ErrorCode.INVALID_REQUEST: "Correct what the error names; `--help` and /openapi.json list every field.",
    ErrorCode.INVALID_JSON: "Send one JSON object in UTF-8, without NaN, Infinity, repeated names or deep nesting.",
    ErrorCode.UNKNOWN_FIELD: "Correct or remove the field; only OpenAI's routes pass unknown fields on (to vLLM).",
    ErrorCode.UNKNOWN_KIND: "Use a kind that exists.",
    ErrorCode.UNKNOWN_MODEL: "Use an alias of models.toml; `hemostat models list` shows them, "
    "`hemostat models add ALIAS FOLDER|HUB_ID` adds one.",
    ErrorCode.UNKNOWN_RECIPE: "Use a recipe type that exists.",
    ErrorCode.UNKNOWN_MODULE: "Name layers and modules that the model has; the problem's own hint lists them.",
    ErrorCode.GROUP_SIZE_MISMATCH: (
        "Choose a group size that divides the input dimension, or null for one scale per row."
    ),
    ErrorCode.PATTERN_MISMATCH: "Choose N:M with N smaller than M and M dividing the input dimension.",
    ErrorCode.RECIPE_NOT_APPLICABLE: "Choose a recipe that fits the model, or another model.",
    ErrorCode.PACKING_UNSUPPORTED: 'Ask for form "simulated", or for bits and groups that a kernel here serves.',
    ErrorCode.CALIBRATION_TOO_SHORT: "Give more calibration data, or ask for fewer or shorter windows.",
    ErrorCode.CALIBRATION_OVERLAP: "Calibrate on documents that are not scored, or set `allow_overlap`.",
    ErrorCode.DOCUMENT_TOO_SHORT: "Remove the document, or make it longer: a token is scored only after another one.",
    ErrorCode.DOCUMENT_NOT_TEXT: "Remove NUL characters and lone surrogates from the text.",
    ErrorCode.TOO_MANY_DOCUMENTS: "Send at most 5,000 documents in one job.",
    ErrorCode.WINDOW_TOO_LARGE: "Choose a window that fits the context of both models.",
    ErrorCode.PATH_FORBIDDEN: "Give a path relative to the text root, without `..` and without links out of it.",
    ErrorCode.TEXT_NOT_FOUND: "Give the path of a file or folder below the text root.",
    ErrorCode.HUB_FORBIDDEN: (
        "Send the text inline or as a file, or ask the operator to add the data set to HEMOSTAT_HUB_TEXT."
    ),
    ErrorCode.HUB_UNAVAILABLE: "Connect the worker to the hub, or send the text inline or as a file.",
    ErrorCode.CHAT_TEMPLATE_MISSING: "Send the documents as plain text, or use a model whose tokenizer has a template.",
    ErrorCode.TASK_INVALID: "Correct the line that the detail names; each format has its own fields.",
    ErrorCode.CODE_EXECUTION_DISABLED: "Leave the task out, or ask the operator to set HEMOSTAT_CODE_EXECUTION=true.",
    ErrorCode.CODE_SANDBOX_UNAVAILABLE: (
        "Leave tasks of code out, or run the worker on a machine that allows seccomp filters."
    ),
    ErrorCode.BODY_TOO_SLOW: "Send less text, or send it over a faster connection.",
    ErrorCode.BODY_TOO_LARGE: "Send less text, or put it into a file below the text root and name that.",
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: "Send the body with Content-Type: application/json.",
    ErrorCode.NOT_ACCEPTABLE: "Accept application/json or text/html, or name a format with ?format=.",
    ErrorCode.METHOD_NOT_ALLOWED: "Use a method that the Allow header names.",
    ErrorCode.NOT_FOUND: "Check the path; /openapi.json lists every route.",
    ErrorCode.UNAUTHORIZED: "Send Authorization: Bearer KEY with a key that the operator issued.",
    ErrorCode.NOT_PERMITTED: "Use a key with the scope that the detail names: `hemostat keys add` makes one.",
    ErrorCode.HOST_NOT_ALLOWED: "Address the service as localhost or 127.0.0.1, or run it with API keys.",
    ErrorCode.RATE_LIMITED: "Wait as long as Retry-After says.",
    ErrorCode.QUEUE_FULL: "Wait as long as Retry-After says, or cancel jobs that wait.",
    ErrorCode.UNAVAILABLE: "Wait as long as Retry-After says; /readyz names the part that fails.",
    ErrorCode.INTERNAL: "Give the operator the request id: the log has the cause under this id.",
    ErrorCode.JOB_NOT_FOUND: "Check the id; a job is forgotten some time after it has ended, or when it is deleted.",
    ErrorCode.JOB_NOT_FINISHED: "Wait for the job to succeed: its event stream ends when it does.",
    ErrorCode.JOB_ACTIVE: "Cancel the job and wait until it has ended, then delete it.",
    ErrorCode.JOB_UNREADABLE: "Run the version that wrote it, or delete the job once it has ended.",
    ErrorCode.ARTIFACT_NOT_FOUND: "Use a name of the job's list of artifacts.",
    ErrorCode.REPORTS_NOT_COMPARABLE: "Measure them alike. --anyway (HTTP: anyway=true) compares what they share.",
    ErrorCode.INVALID_CURSOR: "Use `first_id` or `last_id` of a page as cursor, an event's id as Last-Event-ID.",
    ErrorCode.IDEMPOTENCY_CONFLICT: "Use a new Idempotency-Key for another body.",
    ErrorCode.REQUEST_LOST: "Let API and workers share HEMOSTAT_HOME, then submit the job again.",
    ErrorCode.WORKER_LOST: "See the log of the worker: the usual reason is too little memory.",
    ErrorCode.ENGINE_OUT_OF_MEMORY: "Use a smaller window or model, or a machine with more memory.",
    ErrorCode.ENGINE_FAILED: "See the log of the worker; `hemostat doctor` checks the installation.",
    ErrorCode.DISK_FULL: "Free space below HEMOSTAT_HOME, or lower the budgets of its stores.",
    ErrorCode.STALLED: (
        "See the stacks in the log of the worker. If the step only needs more time, raise HEMOSTAT_JOB_STALL_S."
    ),
    ErrorCode.TIMED_OUT: "Raise `timeout_s`, or ask for less: fewer documents, points or trials.",
    ErrorCode.CHECKPOINT_NOT_FOUND: "Put the checkpoint where models.toml says, or fetch it from the hub.",
    ErrorCode.CHECKPOINT_INCOMPLETE: "Copy the whole checkpoint: each shard that its index names.",
    ErrorCode.CHECKPOINT_CORRUPT: "Copy the file again.",
    ErrorCode.CHECKPOINT_SHAPE_MISMATCH: "Use the config.json that belongs to these weights.",
    ErrorCode.CHECKPOINT_NOT_FINITE: "The weights are broken: make the checkpoint again.",
    ErrorCode.ACTIVATIONS_NOT_FINITE: "Check the checkpoint: one of its layers overflows on ordinary text.",
    ErrorCode.CHECKPOINT_UNSAFE: (
        "Convert the weights to safetensors, and use an architecture that needs no code of its own."
    ),
    ErrorCode.CHECKPOINT_UNSUPPORTED: "Convert the checkpoint to a format that is supported.",
    ErrorCode.MODELS_FILE_INVALID: "The operator must correct models.toml; `hemostat doctor` shows where.",
    ErrorCode.VOCABULARY_MISMATCH: "Compare models of one tokenizer.",
    ErrorCode.HEAD_MISMATCH: "Hemostat does not know this architecture's logits. Use another architecture.",
    ErrorCode.HEAD_UNSUPPORTED: "Use a model whose head is a plain, scaled or soft-capped linear layer.",
    ErrorCode.DEPLOYMENT_NOT_FOUND: "Use a name or id that GET /v1/deployments lists.",
    ErrorCode.DEPLOYMENT_EXISTS: "Choose another name, or change or delete the existing deployment.",
    ErrorCode.DEPLOYMENT_CONFLICT: "Wait for the state that the detail names, or change the field that it names.",
    ErrorCode.PROFILE_NOT_FOUND: "Use a version that GET /v1/calibration/profiles lists.",
    ErrorCode.PROFILE_MISMATCH: "Use a profile that was fitted for this model and reference, or fit one.",
    ErrorCode.PROFILE_CORRUPT: "Delete it and fit it again: its record shows how it was made.",
    ErrorCode.PROFILE_IN_USE: "Promote another version, or delete the deployment, first.",
    ErrorCode.REPLICA_UNAVAILABLE: "Wait as long as Retry-After says; GET /v1/deployments shows each replica's state.",
    ErrorCode.NONFINITE_LOGITS: "The model is broken for this input: compare it with its reference.",
    ErrorCode.VERIFY_UNAVAILABLE: "Leave `verify` out, or make a deployment with `--verify`; the detail says which.",
    ErrorCode.CONTEXT_EXCEEDED: "Shorten the prompt, or lower max_tokens.",
}


def explained(code: str) -> dict[str, Any]:
    """What a code means and what to do, as JSON. Raises NOT_FOUND for a code that does not exist."""
    if code not in set(ErrorCode):
        near = nearest(code, [known.value for known in ErrorCode])
        hint = f"Did you mean {near}?" if near else "`hemostat errors` lists every code."
        raise HemostatError(ErrorCode.NOT_FOUND, "There is no such error code.", hint=hint)
    known = ErrorCode(code)
    kind = CATALOGUE[known]
    return {"code": code, "title": kind.title, "status": kind.status, "hint": GUIDE[known]}
