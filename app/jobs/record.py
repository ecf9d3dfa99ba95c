"""A job's record as it is read back from Redis."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue, TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import TERMINAL, CandidateSummary, Job, JobError, JobStatus, Progress
from app.contracts.request import CandidateModel, JobRequest, Knob, ReferenceModel
from app.contracts.text import CORPUS_NAMES, FileText, HubText, InlineText, SelfText, TextSource

JOBS_PATH = "/v1/diagnosis/jobs"
_KNOBS: Final = TypeAdapter(tuple[Knob, ...])
# Bytes of what is kept as long as the job is.
_MOST_RECIPE: Final = 1000
_MOST_VALUE: Final = 160
_MOST_KNOBS: Final = 500
_MOST_NAME: Final = 120
_SPLIT: Final = HubText.model_fields["split"].default


@dataclass(frozen=True)
class Claim:
    """The right to run a job until somebody else claims it. Every write of it names `attempt`."""

    job_id: str
    attempt: int
    request: JobRequest


@dataclass(frozen=True)
class JobRecord:
    """A job with what its owner does not see: where its files are and who runs it."""

    job: Job
    tries: int
    worker: str | None
    updated_at: float
    queued_at: float
    events: int
    report: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.job.status in TERMINAL


def text_name(text: TextSource) -> str:
    """As `--text` of the command line writes it: `shipped:60`, `self:8192`, `hub:a/b`. Never what is in it.

    A configuration and another split than the default, which it cannot write, stand behind: `hub:a/b, split train`.
    """
    if isinstance(text, InlineText):
        return f"inline:{len(text.documents)}"
    if isinstance(text, FileText):
        return f"file:{text.path}"
    if isinstance(text, SelfText):
        return f"self:{text.tokens}"
    if isinstance(text, HubText):
        return ", ".join(
            [
                f"hub:{text.dataset}" + (f":{text.column}" if text.column != "text" else ""),
                *([f"config {text.config}"] if text.config else []),
                *([f"split {text.split}"] if text.split != _SPLIT else []),
            ]
        )
    corpus = CORPUS_NAMES[text.corpus]
    return f"{corpus}:{text.documents}" if text.documents else corpus


def tested_name(request: JobRequest) -> str | None:
    """The text that the class is measured on, named likewise; None if that is `text`, or a share of its
    documents."""
    return None if request.tested is None else text_name(request.tested)


def request_fields(request: JobRequest) -> dict[str, str]:
    """What of a request the record keeps for good: never its text."""
    deployment, knobs, tested = request.for_deployment, request.turned, tested_name(request)
    return {
        "kind": request.kind,
        **({"deployment": deployment} if deployment else {}),
        **({"knobs": _KNOBS.dump_json(short_knobs(knobs)).decode()} if knobs else {}),
        "text": shortened(text_name(request.text), _MOST_NAME),
        **({"test_text": shortened(tested, _MOST_NAME)} if tested else {}),
        **({"window": str(request.window)} if request.reads_windows else {}),
        "reference": request.reference.model_dump_json(),
        "candidate": summary(request.candidate).model_dump_json(),
        "candidate_model": request.candidate.model,
        "metadata": json.dumps(request.metadata, ensure_ascii=False),
    }


def summary(candidate: CandidateModel) -> CandidateSummary:
    """The candidate in short, and without text."""
    steps: list[dict[str, JsonValue]] = []
    for plain in (False, True):  # with every default, else without them
        dumps = [step.model_dump(mode="json", exclude_defaults=plain) for step in candidate.recipe]
        steps = [{name: _short(value) for name, value in dump.items()} for dump in dumps]
        if len(json.dumps(steps)) <= _MOST_RECIPE:
            return CandidateSummary(model=candidate.model, recipe=tuple(steps))
    while len(json.dumps(steps)) > _MOST_RECIPE:
        steps.pop()
    steps.append({"type": f"{len(candidate.recipe) - len(steps)} more steps"})
    return CandidateSummary(model=candidate.model, recipe=tuple(steps))


def short_knobs(knobs: Sequence[Knob]) -> tuple[Knob, ...]:
    """The knobs; where their values are many or long, only the first and the last value of each."""
    if len(_KNOBS.dump_json(tuple(knobs))) <= _MOST_KNOBS:
        return tuple(knobs)
    return tuple(
        knob.model_copy(update={"values": (_short(knob.values[0]), _short(knob.values[-1]))}) for knob in knobs
    )


def _short(value: JsonValue) -> JsonValue:
    """A value of a recipe's field, unless it is long: then what it is."""
    if isinstance(value, dict) and isinstance(documents := value.get("documents"), list):
        return value | {"documents": len(documents)}
    if len(json.dumps(value)) <= _MOST_VALUE:
        return value
    return f"{len(value)} values" if isinstance(value, list | dict) else shortened(str(value), _MOST_VALUE)


def shortened(text: str, most: int) -> str:
    """The text, cut to so many bytes."""
    whole = text.encode("utf-8", "replace")
    return text if len(whole) <= most else whole[: most - 3].decode("utf-8", "ignore") + "…"


def read_record(fields: Mapping[str, str]) -> JobRecord:
    """The record from its hash. Raises HemostatError (JOB_UNREADABLE) for one that this version did not write."""
    try:
        return _read(fields)
    except (ValueError, KeyError, TypeError) as error:  # pydantic's and json's are ValueErrors
        raise HemostatError(
            ErrorCode.JOB_UNREADABLE, f"The record of job {fields['id']} does not fit this version of Hemostat."
        ) from error


def _read(fields: Mapping[str, str]) -> JobRecord:

    def time(name: str) -> float | None:
        return float(fields[name]) if fields.get(name) else None

    job = Job(
        id=fields["id"],
        kind=fields["kind"],
        status=JobStatus(fields["status"]),
        reference=ReferenceModel.model_validate_json(fields["reference"]),
        candidate=CandidateSummary.model_validate_json(fields["candidate"]),
        knobs=_KNOBS.validate_json(fields["knobs"]) if fields.get("knobs") else (),
        text=fields["text"],
        test_text=fields.get("test_text") or None,
        window=int(fields["window"]) if fields.get("window") else None,
        created_at=float(fields["created_at"]),
        started_at=time("started_at"),
        finished_at=time("finished_at"),
        attempt=int(fields["attempt"]),
        progress=Progress.model_validate_json(fields["progress"]) if fields.get("progress") else Progress(),
        error=JobError.model_validate_json(fields["error"]) if fields.get("error") else None,
        severity=fields.get("severity") or None,
        classes=tuple(json.loads(fields["classes"])) if fields.get("classes") else (),
        answer=fields.get("answer") or None,
        report_url=f"{JOBS_PATH}/{fields['id']}/report",
        artifacts=tuple(json.loads(fields["artifacts"])) if fields.get("artifacts") else (),
        metadata=json.loads(fields["metadata"]),
        deployment=fields.get("deployment") or None,
    )
    return JobRecord(
        job=job,
        tries=int(fields["tries"]),
        worker=fields.get("worker") or None,
        updated_at=float(fields["updated_at"]),
        queued_at=float(fields["queued_at"]),
        events=int(fields["events"]),
        report=fields.get("report") or None,
    )
