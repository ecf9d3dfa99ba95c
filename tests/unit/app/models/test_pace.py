import pytest

from app.models import pace


def test_the_fastest_worker_that_measured_tells_the_pace() -> None:
    found = pace.measured([None, 700 * 134.5e6, 2800 * 134.5e6])
    assert found is not None
    assert found.tokens_per_second == pytest.approx(2800)
    assert found.slower == pytest.approx(0.5)
    assert "measured it here" in found.told


@pytest.mark.parametrize("rates", [[], [None, None], [0.0]])
def test_workers_that_measured_nothing_tell_none(rates: list[float | None]) -> None:
    assert pace.measured(rates) is None


@pytest.mark.parametrize(("avx512", "slower"), [(True, 1.0), (False, 1400 / 540)])
def test_until_then_the_processor_does(monkeypatch: pytest.MonkeyPatch, avx512: bool, slower: float) -> None:
    monkeypatch.setattr(pace, "has_avx512", lambda: avx512)
    found = pace.assumed()
    assert found.slower == pytest.approx(slower)
    assert ("without AVX-512" in found.told) is not avx512
