import math
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from workers.telemetry_verify import VerifyTelemetry

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")


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


def test_the_page_tells_of_each() -> None:
    telemetry = VerifyTelemetry("demo")
    families = [one for one in telemetry.registry.collect() if one.name.startswith("hemostat_")]
    assert len(families) == 3
    section = PAGE.partition("## Verify process")[2].partition("\n## ")[0]
    for one in families:
        name = f"{one.name}_total" if one.type == "counter" else one.name
        assert f"| `{name}` | {one.type} | `deployment` | {one.documentation} |" in section.splitlines()
    assert b'deployment="demo"' in generate_latest(telemetry.registry)
