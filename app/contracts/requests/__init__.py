"""Requests of every kind of job: one file a kind, and here what is any of them.

A new kind: its name in `JobKind`, its file, its request in `AnyRequest` and its submission in `SubmitRequest`, its
report in `app.contracts.reports`, its handler in `workers.diagnosis.registry`.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, TypeAdapter

from app.contracts.requests.attribute import AttributeRequest, AttributeSubmission
from app.contracts.requests.calibrate import CalibrateRequest, CalibrateSubmission
from app.contracts.requests.compare import CompareRequest, CompareSubmission
from app.contracts.requests.mitigate import MitigateRequest, MitigateSubmission
from app.contracts.requests.surface import SurfaceRequest, SurfaceSubmission
from app.contracts.requests.sweep import SweepRequest, SweepSubmission
from app.contracts.requests.tasks import TasksRequest, TasksSubmission
from app.contracts.requests.trajectory import TrajectoryRequest, TrajectorySubmission

AnyRequest = (
    CompareRequest
    | CalibrateRequest
    | MitigateRequest
    | SweepRequest
    | SurfaceRequest
    | TasksRequest
    | TrajectoryRequest
    | AttributeRequest
)
REQUEST: Final[TypeAdapter[AnyRequest]] = TypeAdapter(Annotated[AnyRequest, Field(discriminator="kind")])
JobKind = Literal["compare", "calibrate", "mitigate", "sweep", "surface", "tasks", "trajectory", "attribute"]
KINDS: Final[tuple[JobKind, ...]] = get_args(JobKind)

SubmitRequest = (
    CompareSubmission
    | CalibrateSubmission
    | MitigateSubmission
    | SweepSubmission
    | SurfaceSubmission
    | TasksSubmission
    | TrajectorySubmission
    | AttributeSubmission
)
SUBMISSION: Final[TypeAdapter[SubmitRequest]] = TypeAdapter(Annotated[SubmitRequest, Field(discriminator="kind")])
