"""Which handler runs which kind of job, found by name so that nothing heavy is imported before it is needed."""

from __future__ import annotations

from app.kinds.attribute.request import AttributeRequest
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.surface.request import SurfaceRequest
from app.kinds.sweep.request import SweepRequest
from app.kinds.tasks.request import TasksRequest
from app.kinds.trajectory.request import TrajectoryRequest
from workers.process.handler import Handlers, Kind

HANDLERS = Handlers(
    kinds={
        "compare": Kind(CompareRequest, "workers.diagnosis.compare:compare"),
        "calibrate": Kind(CalibrateRequest, "workers.calibration.job:calibrate"),
        "attribute": Kind(AttributeRequest, "workers.diagnosis.attribute.job:attribute"),
        "mitigate": Kind(MitigateRequest, "workers.diagnosis.mitigate.job:mitigate"),
        "sweep": Kind(SweepRequest, "workers.diagnosis.sweep.job:sweep", "workers.diagnosis.sweep.job:help_sweep"),
        "surface": Kind(
            SurfaceRequest, "workers.diagnosis.surface.job:surface", "workers.diagnosis.surface.job:help_surface"
        ),
        "tasks": Kind(TasksRequest, "workers.diagnosis.tasks.job:tasks"),
        "trajectory": Kind(TrajectoryRequest, "workers.diagnosis.trajectory.job:trajectory"),
    },
    room="workers.engine.room:EngineRoom",
    preload=("workers.diagnosis.compare",),
)
