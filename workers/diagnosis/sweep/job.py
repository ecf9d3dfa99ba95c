"""The `sweep` job: one knob over its values, weakest to strongest, and how far it may be turned.

Order: text, reference (from the store if it was scored before), head check, noise floor, points. Then come what the
kernels of packed ones add, and fits. The engine is started once, and each
setting's weights are swapped in place, where settings share shapes and configuration. Points are kept as they come
(`workers.measuring.points`): the attempt after a lost one goes on from them, and an idle worker (`help_sweep`) takes
what the first has not begun.
"""

from __future__ import annotations

from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.request import SweepRequest
from app.models.knobs import recipe_at
from app.models.strength import Order, order_of
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.export import export
from workers.diagnosis.sweep.range_measurement import Range, RangeMeasurement
from workers.diagnosis.sweep.report import Swept, build_report
from workers.engine.room import EngineRoom
from workers.measuring.attempt import counted
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.ground import Ground
from workers.measuring.points.kernels import Kernel
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import PointRunner, Setting
from workers.process.handler import JobContext


def sweep(request: SweepRequest, context: JobContext, room: EngineRoom) -> SweepReport:
    """Runs the job and returns its report; the curve goes to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Sweep(request, context, room).run()


def help_sweep(request: SweepRequest, context: JobContext, room: EngineRoom) -> None:
    """Measures points of a sweep that another worker runs, until none is left to take. Raises as `sweep`."""
    with counted(room, context):
        _Sweep(request, context, room).help()


class _Sweep(PointsAttempt):
    """One attempt at one sweep job."""

    def __init__(self, request: SweepRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> SweepReport:
        request, context, watch = self._request, self._context, self._watch
        with self.ground() as ground:
            over, order = self._range(ground)
            runner = self.runner(ground, total=request.planned)
            measurement = self._measurement(runner, over)
            with watch.phase("points"):
                found = measurement.run()
            places = sorted(found)
            kernels = self.kernels(
                ground, [over.settings[place] for place in places], [found[place] for place in places]
            )
            course = _course(found, over, order, ground, dict(zip(places, kernels, strict=True)))
        context.check_cancelled()
        with watch.phase("statistics"):
            context.progress("statistics", 0, 1)
            swept = Swept(request, ground, course, self.conditions(ground, runner))
            report = build_report(swept, context)
        with watch.phase("report"):
            export(report, course, context)
            context.progress("report", 1, 1)
        return report

    def help(self) -> None:
        """What another worker's attempt has not begun."""
        with self.ground() as ground:
            if not ground.shared:
                return
            over, _ = self._range(ground)
            self._measurement(self.runner(ground, total=self._request.planned), over).run(wait=False)

    def _range(self, ground: Ground) -> tuple[Range, Order]:
        """The settings from weak to strong, and what their order is."""
        recipe, knobs = self._request.candidate.recipe, self._request.knobs
        knob = knobs[0]
        order, share = order_of(ground.sides.candidate.info, recipe, knob)
        settings = tuple(
            Setting((knob.values[index],), recipe_at(recipe, knobs, [knob.values[index]])) for index in order.places
        )
        s = None if share is None else tuple(share[index] for index in order.places)
        return Range(settings, s, order.kind != "unknown"), order

    def _measurement(self, runner: PointRunner, over: Range) -> RangeMeasurement:
        request = self._request
        return RangeMeasurement(
            runner,
            over,
            budget=request.planned,
            bounds=request.bounds,
            thresholds=request.thresholds,
            check_cancelled=self._context.check_cancelled,
        )


def _course(
    found: dict[int, PointRecord], over: Range, order: Order, ground: Ground, kernels: dict[int, Kernel]
) -> Course:
    points = tuple(
        MeasuredPoint(
            index=order.places[place],
            value=over.settings[place].values[0],
            s=None if over.s is None else over.s[place],
            record=found[place],
            kernel=kernels[place],
        )
        for place in sorted(found)
    )
    return Course(points, ground.window_documents, order).by_damage()
