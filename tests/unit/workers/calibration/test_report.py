"""What the report of a calibrate job warns of, and what it does not speak of."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tests.support.making import sides
from workers.calibration.report import _not_tested, _warnings


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


def test_sampling_settings_are_tested_if_the_job_asks_for_them() -> None:
    test = SimpleNamespace(documents=[SimpleNamespace(domain="prose")], conversations=0, whole_conversations=0)

    def codes(*sampling: object) -> set[str]:
        tested = SimpleNamespace(
            request=SimpleNamespace(sampling=sampling, test_text=None, text=None),
            sets=SimpleNamespace(test=test),
            positions=SimpleNamespace(context=np.arange(3)),
        )
        return {one.code for one in _not_tested(cast("Any", tested))}

    assert codes() - codes(object()) == {"sampling_settings"}
    assert codes(object()) < codes()
