"""The `compare` job: how far a modified model's next-token distributions are from the original's over one text."""

from __future__ import annotations

from collections.abc import Sequence

from app.contracts.report import GeneratedToolCalls
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from workers.diagnosis.compare.report import build_report
from workers.diagnosis.compare.tool_calls.prompts import with_tools
from workers.diagnosis.compare.tool_calls.run import generated_tool_calls
from workers.engine.room import EngineRoom
from workers.measuring.attempt import counted
from workers.measuring.gauges import export_metrics
from workers.measuring.pair import PairAttempt
from workers.measuring.sides import Side, Sides
from workers.process.handler import JobContext
from workers.text.documents import TextDocument


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """Runs the job and returns its report; the per-token values and the recipe's manifest go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Compare(request, context, room).run()


class _Compare(PairAttempt):
    """One attempt at one compare job."""

    def __init__(self, request: CompareRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> CompareReport:
        request, context, watch = self._request, self._context, self._watch
        with self.pair((self._conversations, "conversation")) as pair:
            measured = self.measure(pair, request.precision)
            tool_calls = self._tool_calls(pair.sides)
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                classes = self._classified(pair.documents, pair.corpus, measured.positions, pair.sides.reference)
                report = build_report(request, measured, classes, tool_calls)
            with watch.phase("report"):
                measured.write(classes)
                export_metrics(report, measured.values, context)
                context.progress("report", 1, 1)
        return report

    def _conversations(self, reference: Side, dtype: str) -> Sequence[TextDocument]:
        """The conversations in which tool calls are asked for."""
        asked = self._request.generate_tool_calls
        return () if asked is None else with_tools(self._documents(asked.text, reference, dtype), asked.prompts)

    def _tool_calls(self, sides: Sides) -> GeneratedToolCalls | None:
        """What both models write when they may call tools, where that was asked for."""
        asked = self._request.generate_tool_calls
        if asked is None:
            return None
        with self._watch.phase("generate"):
            return generated_tool_calls(
                asked,
                self._documents(asked.text, sides.reference, sides.dtype),
                sides,
                self._room,
                store_text=self._request.keeps_text,
                context=self._context,
            )
