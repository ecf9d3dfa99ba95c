"""What the report of a calibrate job warns of."""

from types import SimpleNamespace
from typing import Any, cast

from tests.support.making import sides
from workers.calibration.report import _warnings


def test_what_was_warned_of_in_making_the_candidate_is_told() -> None:
    documents = [SimpleNamespace(domain="prose") for _ in range(100)]
    finite = cast("Any", SimpleNamespace(nonfinite_positions=0))

    def told(*making: str) -> list[str]:
        tested = SimpleNamespace(
            sides=sides(*making),
            sets=SimpleNamespace(test=SimpleNamespace(documents=documents), fitted_domains=lambda: {"prose"}),
            test=SimpleNamespace(effects=None),
        )
        return _warnings(cast("Any", tested), finite, finite)

    assert told() == []
    assert told("too little text") == ["Of making the candidate by quantize.gptq: too little text"]
