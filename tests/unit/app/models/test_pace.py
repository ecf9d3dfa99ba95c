import pytest

from app.models import pace


def test_the_fastest_worker_that_measured_tells_the_pace():
    found = pace.measured([(None, True), (700 * 134.5e6, True), (2800 * 134.5e6, False)])
    assert found is not None
    assert found.tokens_per_second == pytest.approx(2800)
    assert found.slower == pytest.approx(0.5)
    assert "measured it here" in found.told
    assert not found.gpu


@pytest.mark.parametrize("rates", [[], [(None, False), (None, True)], [(0.0, True)]])
def test_workers_that_measured_nothing_tell_none(rates):
    assert pace.measured(rates) is None


@pytest.mark.parametrize(
    ("avx512", "bf16", "slower", "told"),
    [
        (True, True, 1.0, "as measured on a 2-core CPU"),
        (True, False, 1400 / 995, "has AVX-512 without BF16"),
        (False, False, 1400 / 540, "without AVX-512"),
    ],
)
def test_until_then_the_processor_does(monkeypatch, avx512, bf16, slower, told):
    monkeypatch.setattr(pace, "has_avx512", lambda: avx512)
    monkeypatch.setattr(pace, "has_bf16", lambda: bf16)
    found = pace.assumed()
    assert found.slower == pytest.approx(slower)
    assert told in found.told
