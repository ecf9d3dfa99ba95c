import pytest

from app.kinds.calibrate.plan import FITTED
from app.models import pace
from app.models.pace import CARDS, UNKNOWN, Pace, card_of

H100, L4 = "NVIDIA H100 80GB HBM3", "NVIDIA L4"
EIGHT_BILLION = 8e9


def test_the_fastest_worker_that_measured_tells_the_pace():
    found = pace.measured([(None, H100), (700 * 134.5e6, L4), (2800 * 134.5e6, "")])
    assert found is not None
    assert found.tokens_per_second == pytest.approx(2800)
    assert found.slower == pytest.approx(0.5)
    assert "measured it here" in found.told
    assert not found.card


@pytest.mark.parametrize("rates", [[], [(None, ""), (0.0, "")]])
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


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (H100, "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        (L4, "L4"),
        ("NVIDIA L40S", ""),
        ("GPU", ""),
    ],
)
def test_a_card_is_known_by_its_name_and_an_unknown_one_taken_for_the_slowest(told, name):
    assert card_of(told).name == name
    for rate in ("bf16", "float32", "memory"):
        assert getattr(UNKNOWN, rate) == min(getattr(card, rate) for card in CARDS)
    assert any("unknown" in line for line in Pace(1.0, "", told).assumptions()) == (not name)


def test_until_a_gpu_was_measured_its_passes_are_computed():
    """An 8B on an H100: 0.4 · 989 TFLOP/s by 16 GFLOP per token."""
    found = pace.measured([(None, L4), (None, H100), (None, "")])
    assert found is not None
    assert found.card == H100
    assert found.seconds(pace.SCORED, EIGHT_BILLION) == pytest.approx(16e9 / (0.4 * 989e12))
    assert found.told == f"as computed for {H100}"


def test_what_an_8b_takes_on_an_h100():
    """Calibration text of 65,536 tokens: two passes of 1.05 PFLOP each in bf16 and second moments of 1.26 PFLOP in
    float32. Training on 20 million tokens is 0.96 EFLOP."""
    here = Pace(1.0, "", H100)
    treated = (2 * 1.05e15 / 989e12 + 1.26e15 / 67e12) / 0.4
    assert here.seconds(pace.TREATED, EIGHT_BILLION * 65_536) == pytest.approx(treated, rel=0.01)
    for name, rate in (("bf16", 989e12), ("float32", 67e12)):
        trained = here.seconds(pace.TRAINED[name], EIGHT_BILLION * 2e7)
        assert trained == pytest.approx(0.96e18 / rate / 0.4, rel=0.01)


def test_what_fits_take():
    """Three calibrators by the shipped corpora. The demo model took 347 s, with passes of about 185 s; an 8B on an H100
    is computed."""
    tokens = 3 * 42_615
    assert Pace(pace.TOKENS_PER_SECOND, "").seconds(FITTED, tokens * 49_152 * 576) == pytest.approx(347 - 185, rel=0.05)
    head = tokens * 128_256 * 4096
    computed = (12 * head / 989e12 + 3 * head / 67e12 + 0.35 * head / 3.35e12) / 0.4
    assert Pace(1.0, "", H100).seconds(FITTED, head) == pytest.approx(computed, rel=0.01)


def test_a_step_of_an_8b_is_compared_in_two_products_with_its_head():
    """8.6 TFLOP for 4,096 tokens."""
    units = 4096 * 128_256 * 4096
    assert Pace(1.0, "", H100).seconds(pace.DIVERGED, units) == pytest.approx(8.6e12 / 989e12 / 0.4, rel=0.01)


def test_writing_is_bound_by_memory_and_a_checkpoint_by_the_disk():
    """16 texts at a time: 16 GB of weights for 16 tokens. A checkpoint of 16 GB is moved four times at 1 GB/s."""
    here = Pace(1.0, "", H100)
    assert here.seconds(pace.WRITTEN, EIGHT_BILLION * 16) == pytest.approx(16e9 / (0.4 * 3.35e12), rel=0.1)
    assert here.seconds(pace.CHANGED, EIGHT_BILLION) == pytest.approx(64)


def test_what_runs_on_the_host_takes_what_it_took_there():
    part = pace.Part(10.0)
    assert Pace(1e6, "", H100).seconds(part, 50.0) == 5.0
    assert Pace(700.0, "").seconds(part, 50.0) == 10.0


@pytest.mark.parametrize("rate", [700.0, 1400.0])
def test_on_a_cpu_every_part_is_in_proportion_to_what_two_cores_did(rate):
    here = Pace(rate, "")
    for part in (
        pace.SCORED,
        pace.CHANGED,
        pace.TREATED,
        pace.WEIGHED,
        pace.MULTIPLIED,
        pace.WRITTEN,
        pace.MEASURED,
        *pace.TRAINED.values(),
    ):
        assert here.seconds(part, part.per_second) == pytest.approx(1400.0 / rate)
    assert here.seconds(pace.DIVERGED, 1e12) == 0
