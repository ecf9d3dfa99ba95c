"""The error catalogue: one stable code for each thing that can go wrong, the same over HTTP and in a failed job."""

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# What a system says where a disk takes no more: no room, a used-up quota, and a file that is not allowed to grow.
DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ErrorCode(StrEnum):
    """Stable identifiers. A code is never renamed; its HTTP status and title stand in `CATALOGUE`."""

    # the request shows it
    INVALID_REQUEST = "invalid_request"
    INVALID_JSON = "invalid_json"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_KIND = "unknown_kind"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_RECIPE = "unknown_recipe"
    UNKNOWN_MODULE = "unknown_module"
    GROUP_SIZE_MISMATCH = "group_size_mismatch"
    PATTERN_MISMATCH = "pattern_mismatch"
    RECIPE_NOT_APPLICABLE = "recipe_not_applicable"
    PACKING_UNSUPPORTED = "packing_unsupported"
    CALIBRATION_TOO_SHORT = "calibration_too_short"
    CALIBRATION_OVERLAP = "calibration_overlap"
    DOCUMENT_TOO_SHORT = "document_too_short"
    DOCUMENT_NOT_TEXT = "document_not_text"
    TOO_MANY_DOCUMENTS = "too_many_documents"
    WINDOW_TOO_LARGE = "window_too_large"
    PATH_FORBIDDEN = "path_forbidden"
    TEXT_NOT_FOUND = "text_not_found"
    HUB_FORBIDDEN = "hub_forbidden"
    HUB_UNAVAILABLE = "hub_unavailable"
    CHAT_TEMPLATE_MISSING = "chat_template_missing"
    TASK_INVALID = "task_invalid"
    CODE_EXECUTION_DISABLED = "code_execution_disabled"
    CODE_SANDBOX_UNAVAILABLE = "code_sandbox_unavailable"
    # HTTP itself
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    NOT_ACCEPTABLE = "not_acceptable"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    NOT_PERMITTED = "not_permitted"
    HOST_NOT_ALLOWED = "host_not_allowed"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"
    # jobs
    JOB_NOT_FOUND = "job_not_found"
    JOB_NOT_FINISHED = "job_not_finished"
    JOB_ACTIVE = "job_active"
    JOB_UNREADABLE = "job_unreadable"
    ARTIFACT_NOT_FOUND = "artifact_not_found"
    REPORTS_NOT_COMPARABLE = "reports_not_comparable"
    INVALID_CURSOR = "invalid_cursor"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    REQUEST_LOST = "request_lost"
    WORKER_LOST = "worker_lost"
    ENGINE_OUT_OF_MEMORY = "engine_out_of_memory"
    ENGINE_FAILED = "engine_failed"
    DISK_FULL = "disk_full"
    STALLED = "stalled"
    TIMED_OUT = "timed_out"
    # checkpoints and models
    CHECKPOINT_NOT_FOUND = "checkpoint_not_found"
    CHECKPOINT_INCOMPLETE = "checkpoint_incomplete"
    CHECKPOINT_CORRUPT = "checkpoint_corrupt"
    CHECKPOINT_SHAPE_MISMATCH = "checkpoint_shape_mismatch"
    CHECKPOINT_NOT_FINITE = "checkpoint_not_finite"
    ACTIVATIONS_NOT_FINITE = "activations_not_finite"
    CHECKPOINT_UNSAFE = "checkpoint_unsafe"
    CHECKPOINT_UNSUPPORTED = "checkpoint_unsupported"
    MODELS_FILE_INVALID = "models_file_invalid"
    VOCABULARY_MISMATCH = "vocabulary_mismatch"
    HEAD_MISMATCH = "head_mismatch"
    HEAD_UNSUPPORTED = "head_unsupported"
    # deployments, profiles and the gateway
    DEPLOYMENT_NOT_FOUND = "deployment_not_found"
    DEPLOYMENT_EXISTS = "deployment_exists"
    DEPLOYMENT_CONFLICT = "deployment_conflict"
    PROFILE_NOT_FOUND = "profile_not_found"
    PROFILE_MISMATCH = "profile_mismatch"
    PROFILE_CORRUPT = "profile_corrupt"
    PROFILE_IN_USE = "profile_in_use"
    REPLICA_UNAVAILABLE = "replica_unavailable"
    NONFINITE_LOGITS = "nonfinite_logits"
    VERIFY_UNAVAILABLE = "verify_unavailable"
    CONTEXT_EXCEEDED = "context_exceeded"


@dataclass(frozen=True)
class ErrorKind:
    """How a code is presented: HTTP status when the request shows it, and a title that never changes."""

    status: int
    title: str


CATALOGUE: dict[ErrorCode, ErrorKind] = {
    ErrorCode.INVALID_REQUEST: ErrorKind(422, "The request cannot be done as asked"),
    ErrorCode.INVALID_JSON: ErrorKind(400, "The body is not JSON"),
    ErrorCode.UNKNOWN_FIELD: ErrorKind(422, "The request has a field that does not exist"),
    ErrorCode.UNKNOWN_KIND: ErrorKind(422, "There is no such kind of job"),
    ErrorCode.UNKNOWN_MODEL: ErrorKind(404, "There is no model of that alias"),
    ErrorCode.UNKNOWN_RECIPE: ErrorKind(422, "There is no such recipe type"),
    ErrorCode.UNKNOWN_MODULE: ErrorKind(422, "The model has no such layer or module"),
    ErrorCode.GROUP_SIZE_MISMATCH: ErrorKind(422, "The group size does not divide a weight's input dimension"),
    ErrorCode.PATTERN_MISMATCH: ErrorKind(422, "The N:M pattern cannot be applied"),
    ErrorCode.RECIPE_NOT_APPLICABLE: ErrorKind(422, "The recipe cannot be applied to this model"),
    ErrorCode.PACKING_UNSUPPORTED: ErrorKind(422, "No kernel here serves the packed form"),
    ErrorCode.CALIBRATION_TOO_SHORT: ErrorKind(422, "The calibration data is too short"),
    ErrorCode.CALIBRATION_OVERLAP: ErrorKind(422, "The calibration data and the scored text share documents"),
    ErrorCode.DOCUMENT_TOO_SHORT: ErrorKind(422, "A document has fewer than two tokens"),
    ErrorCode.DOCUMENT_NOT_TEXT: ErrorKind(422, "A document is not valid text"),
    ErrorCode.TOO_MANY_DOCUMENTS: ErrorKind(422, "The request has too many documents"),
    ErrorCode.WINDOW_TOO_LARGE: ErrorKind(422, "The window is longer than the model's context"),
    ErrorCode.PATH_FORBIDDEN: ErrorKind(403, "The path is outside the allowed folder"),
    ErrorCode.TEXT_NOT_FOUND: ErrorKind(404, "There is no such text"),
    ErrorCode.HUB_FORBIDDEN: ErrorKind(403, "This service takes no text from this data set of the hub"),
    ErrorCode.HUB_UNAVAILABLE: ErrorKind(503, "The hub cannot be reached"),
    ErrorCode.CHAT_TEMPLATE_MISSING: ErrorKind(422, "The tokenizer has no chat template"),
    ErrorCode.TASK_INVALID: ErrorKind(422, "A task file does not match its format"),
    ErrorCode.CODE_EXECUTION_DISABLED: ErrorKind(403, "This service runs no code that models write"),
    ErrorCode.CODE_SANDBOX_UNAVAILABLE: ErrorKind(501, "Code cannot be run safely on this machine"),
    ErrorCode.BODY_TOO_LARGE: ErrorKind(413, "The body is too large"),
    ErrorCode.BODY_TOO_SLOW: ErrorKind(408, "The body arrives too slowly"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ErrorKind(415, "The body's media type is not supported"),
    ErrorCode.NOT_ACCEPTABLE: ErrorKind(406, "None of the accepted media types can be produced"),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorKind(405, "The route does not take this method"),
    ErrorCode.NOT_FOUND: ErrorKind(404, "There is no such route"),
    ErrorCode.UNAUTHORIZED: ErrorKind(401, "A valid key is needed"),
    ErrorCode.NOT_PERMITTED: ErrorKind(403, "The API key may not do this"),
    ErrorCode.HOST_NOT_ALLOWED: ErrorKind(421, "The service is not addressed by this name"),
    ErrorCode.RATE_LIMITED: ErrorKind(429, "Too many requests"),
    ErrorCode.QUEUE_FULL: ErrorKind(429, "Too many jobs are waiting"),
    ErrorCode.UNAVAILABLE: ErrorKind(503, "A part of the service is not available"),
    ErrorCode.INTERNAL: ErrorKind(500, "An unexpected error"),
    ErrorCode.JOB_NOT_FOUND: ErrorKind(404, "There is no such job"),
    ErrorCode.JOB_NOT_FINISHED: ErrorKind(409, "The job has no result yet"),
    ErrorCode.JOB_ACTIVE: ErrorKind(409, "The job is still active"),
    ErrorCode.JOB_UNREADABLE: ErrorKind(409, "The job's record or report was written by another version"),
    ErrorCode.ARTIFACT_NOT_FOUND: ErrorKind(404, "The job has no such artifact"),
    ErrorCode.REPORTS_NOT_COMPARABLE: ErrorKind(422, "The reports were not measured alike"),
    ErrorCode.INVALID_CURSOR: ErrorKind(422, "The cursor does not name a job or an event"),
    ErrorCode.IDEMPOTENCY_CONFLICT: ErrorKind(422, "The idempotency key was used with another body"),
    ErrorCode.REQUEST_LOST: ErrorKind(500, "The job's stored request cannot be read"),
    ErrorCode.WORKER_LOST: ErrorKind(500, "The job's workers died too often"),
    ErrorCode.ENGINE_OUT_OF_MEMORY: ErrorKind(500, "The engine ran out of memory"),
    ErrorCode.ENGINE_FAILED: ErrorKind(500, "The engine failed"),
    ErrorCode.DISK_FULL: ErrorKind(507, "The disk is full"),
    ErrorCode.STALLED: ErrorKind(500, "The job made no progress"),
    ErrorCode.TIMED_OUT: ErrorKind(500, "The job took longer than its request allows"),
    ErrorCode.CHECKPOINT_NOT_FOUND: ErrorKind(404, "The checkpoint does not exist"),
    ErrorCode.CHECKPOINT_INCOMPLETE: ErrorKind(422, "The checkpoint lacks a file or a tensor"),
    ErrorCode.CHECKPOINT_CORRUPT: ErrorKind(422, "A checkpoint file is damaged"),
    ErrorCode.CHECKPOINT_SHAPE_MISMATCH: ErrorKind(422, "A tensor has another shape than its configuration says"),
    ErrorCode.CHECKPOINT_NOT_FINITE: ErrorKind(422, "A weight is not a finite number"),
    ErrorCode.ACTIVATIONS_NOT_FINITE: ErrorKind(422, "An activation is not a finite number"),
    ErrorCode.CHECKPOINT_UNSAFE: ErrorKind(422, "The checkpoint could run code when loaded"),
    ErrorCode.CHECKPOINT_UNSUPPORTED: ErrorKind(422, "The checkpoint's format is not supported"),
    ErrorCode.MODELS_FILE_INVALID: ErrorKind(500, "models.toml is not valid"),
    ErrorCode.VOCABULARY_MISMATCH: ErrorKind(422, "The two models have different vocabularies"),
    ErrorCode.HEAD_MISMATCH: ErrorKind(422, "The model's head could not be reproduced"),
    ErrorCode.HEAD_UNSUPPORTED: ErrorKind(422, "The model's head is of a kind that is not supported"),
    ErrorCode.DEPLOYMENT_NOT_FOUND: ErrorKind(404, "There is no such deployment"),
    ErrorCode.DEPLOYMENT_EXISTS: ErrorKind(409, "A deployment of that name exists"),
    ErrorCode.DEPLOYMENT_CONFLICT: ErrorKind(409, "The deployment's state does not allow this"),
    ErrorCode.PROFILE_NOT_FOUND: ErrorKind(404, "There is no such calibration profile"),
    ErrorCode.PROFILE_MISMATCH: ErrorKind(422, "The calibration profile belongs to another model"),
    ErrorCode.PROFILE_CORRUPT: ErrorKind(422, "The calibration profile is damaged"),
    ErrorCode.PROFILE_IN_USE: ErrorKind(409, "The calibration profile is being served"),
    ErrorCode.REPLICA_UNAVAILABLE: ErrorKind(503, "No replica can take the request"),
    ErrorCode.NONFINITE_LOGITS: ErrorKind(500, "The model's logits were not finite numbers"),
    ErrorCode.VERIFY_UNAVAILABLE: ErrorKind(501, "Verified decoding is not available"),
    ErrorCode.CONTEXT_EXCEEDED: ErrorKind(400, "The prompt is longer than the model's context"),
}


class HemostatError(Exception):
    """An error that a person can act on.

    `detail` says what happened and with which input, `hint` what to do. `pointer` is the JSON pointer of the offending
    field of the request, or "". `retry_after_s` is how long to wait. None may hold prompt text.
    """

    def __init__(
        self, code: ErrorCode, detail: str, *, hint: str = "", pointer: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.pointer = pointer
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return CATALOGUE[self.code].status

    def __reduce__(self) -> tuple[type["HemostatError"], tuple[ErrorCode, str], dict[str, object]]:
        """Exceptions pickle by `args` alone; this one must cross a process border whole."""
        return (type(self), (self.code, self.detail), self.__dict__)


def not_applicable(detail: str, *, hint: str, pointer: str = "") -> HemostatError:
    """A step that cannot be done on a checkpoint."""
    return HemostatError(ErrorCode.RECIPE_NOT_APPLICABLE, detail, hint=hint, pointer=pointer)
