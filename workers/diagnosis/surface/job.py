"""The `surface` job: every setting of two knobs against one reference, and what follows from the whole table.

Each knob alone is measured first, then both together, then the other order of the steps where it is asked for. Points
are kept as they are measured (`workers.measuring.points`): the attempt after a lost one measures none of them again.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.kinds.surface.plan import Cell, cells_of
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.request import SurfaceRequest
from workers.diagnosis.surface.export import export
from workers.diagnosis.surface.report import Found, build_report
from workers.engine.room import EngineRoom
from workers.measuring.attempt import counted
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.runner import Setting
from workers.process.handler import JobContext


def surface(request: SurfaceRequest, context: JobContext, room: EngineRoom) -> SurfaceReport:
    """Runs the job and returns its report; the table and the chosen recipe go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Surface(request, context, room).run()


def help_surface(request: SurfaceRequest, context: JobContext, room: EngineRoom) -> None:
    """Measures settings of a surface that another worker runs, until none is left to take. Raises as `surface`."""
    with counted(room, context):
        _Surface(request, context, room).help()


class _Surface(PointsAttempt):
    """One attempt at one surface job."""

    def __init__(self, request: SurfaceRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> SurfaceReport:
        request, context, watch = self._request, self._context, self._watch
        cells = cells_of(request)
        with self.ground() as ground:
            runner = self.runner(ground, total=len(cells))
            with watch.phase("points"):
                measured = runner.measure(_settings(cells))
            records = [record for record in measured if record is not None]  # it waited for all of them
            kernels = self.kernels(ground, _settings(cells), records)
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                report = build_report(
                    Found(request, ground, cells, records, kernels, self.conditions(ground, runner)),
                    context,
                )
        with watch.phase("report"):
            export(report, request, context)
            context.progress("report", 1, 1)
        return report

    def help(self) -> None:
        """What another worker's attempt has not begun."""
        cells = cells_of(self._request)
        with self.ground() as ground:
            if ground.shared:
                self.runner(ground, total=len(cells)).measure(_settings(cells), wait=False)


def _settings(cells: Sequence[Cell]) -> list[Setting]:
    return [Setting((cell.first, cell.second, cell.order), cell.recipe) for cell in cells]
