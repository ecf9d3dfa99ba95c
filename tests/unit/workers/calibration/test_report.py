"""What the report of a calibrate job does not speak of."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from workers.calibration.report import _not_tested


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
