import math

import pytest

from workers.telemetry_verify import VerifyTelemetry


def value(telemetry: VerifyTelemetry, name: str) -> float:
    found = telemetry.registry.get_sample_value(name, {"deployment": "demo"})
    assert found is not None
    return found


def test_ratios_are_unknown_at_first_and_then_over_all_answers() -> None:
    telemetry = VerifyTelemetry("demo")
    ratio, tokens = "hemostat_verify_acceptance_ratio", "hemostat_verify_tokens_per_reference_pass"
    assert math.isnan(value(telemetry, ratio))
    assert math.isnan(value(telemetry, tokens))
    telemetry.finished(drawn=1, passes=1, drafted=0, overlap=0.0)
    assert math.isnan(value(telemetry, ratio)), "nothing was drafted"
    telemetry.finished(drawn=10, passes=4, drafted=8, overlap=6.0)
    telemetry.finished(drawn=2, passes=1, drafted=2, overlap=0.5)
    assert value(telemetry, ratio) == pytest.approx(6.5 / 10)
    assert value(telemetry, tokens) == pytest.approx(13 / 6)
    assert value(telemetry, "hemostat_verify_requests_total") == 3
