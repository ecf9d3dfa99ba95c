import pytest

from app.kinds.calibrate.request import WITH_BLOCKS
from app.kinds.estimates import ENGINE_START_S, estimate
from app.models.checkpoint import inspect
from app.models.pace import Pace
from tests.support.asked import RTN, calibration, request


def in_layers(registry, alias="llama"):
    """Parameters of a model's layers, without the embedding and the head."""
    tensors = inspect(registry.resolve(alias).checkpoint_path()).tensors
    return sum(tensor.elements for name, tensor in tensors.items() if ".layers." in name)


def test_an_estimate_follows_from_sizes(registry, settings):
    asked = request(RTN, documents=[{"id": "1", "text": "x" * 300}, {"id": "2", "text": "é" * 50}])
    found = estimate(asked, registry, settings)
    info = inspect(registry.resolve("llama").checkpoint_path())
    assert (found.documents, found.tokens) == (2, 100)
    assert found.reference_store_bytes == 2 * 64 * 100
    assert found.checkpoint_bytes == info.bytes
    assert 15 <= found.seconds < 16
    assert any("4 bytes" in assumption for assumption in found.assumptions)


def test_work_takes_as_long_as_models_take_here_and_starts_do_not(registry, settings):
    asked = request(RTN, text={"source": "self", "tokens": 1_000_000})
    at = {rate: estimate(asked, registry, settings, Pace(rate, "as it is")) for rate in (1400.0, 700.0, 2800.0)}
    work = at[1400.0].seconds - ENGINE_START_S
    assert work > 1
    assert at[700.0].seconds == pytest.approx(ENGINE_START_S + 2 * work, abs=0.2)
    assert at[2800.0].seconds == pytest.approx(ENGINE_START_S + work / 2, abs=0.2)
    assert any("700 tokens/s for 134.5M parameters, as it is" in told for told in at[700.0].assumptions)
    assert any("2 times slower here" in told for told in at[700.0].assumptions)
    assert any("2 times faster here" in told for told in at[2800.0].assumptions)


def test_steps_that_look_at_text_are_estimated_with_it(registry, settings):
    parameters = in_layers(registry)
    text = {"source": "self", "tokens": 4096}

    def gptq(windows):
        return {"type": "quantize.gptq", "bits": 4, "calibration_windows": windows, "calibration_window": 256}

    some, more = (
        estimate(request(gptq(windows), text=text), registry, settings, Pace(1400.0, "as it is"))
        for windows in (8, 4096)
    )
    assert more.seconds - some.seconds == pytest.approx(4088 * 256 * parameters / 4e10, abs=0.11)
    assert any("a step that looks at 2,048 calibration tokens" in line for line in some.assumptions)
    dropped = {"type": "prune.layers", "layers": [1]}
    for step in (RTN, {"type": "quantize.fp8"}, {"type": "quantize.activations", "bits": 8}, dropped):
        plain = estimate(request(step, text=text), registry, settings, Pace(1400.0, "as it is"))
        assert not any("calibration tokens" in line for line in plain.assumptions), "it reads no text"


def test_text_that_is_short_for_the_widest_layer_is_named_before_the_job_runs(registry, settings):
    """The tiny model's widest layer has 128 inputs: 512 tokens are enough, and as many of the reference's own count."""
    text = {"source": "self", "tokens": 4096}

    def told(step, **options):
        lines = estimate(request(RTN, {"type": step} | options, text=text), registry, settings).assumptions
        return [line for line in lines if "widest layer" in line]

    for windows in (15, 16):
        given = {"calibration_windows": windows, "calibration_window": 32}
        found = told("quantize.gptq", bits=4, **given)
        assert [("480 calibration tokens" in line and "give 512" in line) for line in found] == [True] * (16 - windows)
    assert not told("repair.lowrank", rank=4, calibration_windows=8, calibration_window=32, own_windows=8)
    assert not told("prune.wanda", sparsity=0.5, calibration_windows=15, calibration_window=32), "it inverts nothing"


def test_training_is_counted_and_a_limit_in_seconds_is_the_same_on_every_machine(registry, settings):
    parameters = inspect(registry.resolve("llama").checkpoint_path()).parameters

    def repaired(pace, **options):
        step = {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "calibration_window": 128, **options}
        text = {"source": "self", "tokens": 4096}
        return estimate(request(RTN, step, text=text), registry, settings, Pace(pace, "as it is")).seconds

    trained = repaired(1400.0, distill_steps=100_000) - repaired(1400.0, distill_steps=0)
    assert trained == pytest.approx(100_000 * 1024 * parameters / 3e10, rel=1e-3)
    for pace in (1400.0, 350.0):
        limited = repaired(pace, distill_s=500.0) - repaired(pace, distill_steps=0)
        assert limited == pytest.approx(500, abs=0.2)


def test_on_a_gpu_a_step_takes_what_its_products_take_there_however_fast_passes_are(registry, settings):
    """A repair of 13.7 hours was announced as a minute. The A100's 312 TFLOP/s are of its maker, 6 FLOP per parameter
    and token are those of a forward and a backward pass, of which 40 % are reached."""
    parameters = inspect(registry.resolve("llama").checkpoint_path()).parameters

    def repaired(steps, rate=1.4e6):
        step = {"type": "repair.lowrank", "rank": 4, "distill_steps": steps, "calibration_window": 128}
        asked = request(RTN, step, text={"source": "self", "tokens": 4096})
        return estimate(asked, registry, settings, Pace(rate, "", "NVIDIA A100-SXM4-80GB"))

    most, none = repaired(1_000_000), repaired(0)
    trained = 1_000_000 * 1024 * parameters
    assert most.seconds - none.seconds == pytest.approx(6 * trained / (0.4 * 312e12), abs=0.11)
    assert most.seconds - none.seconds > 2
    assert repaired(1_000_000, rate=1400.0).seconds == pytest.approx(most.seconds, abs=0.11)
    told = " ".join(most.assumptions)
    assert "NVIDIA A100-SXM4-80GB is computed, not measured" in told
    assert "312 TFLOP/s in bf16, 20 in float32" in told
    assert "as measured on a 2-core CPU" not in told


def test_in_batch_invariant_mode_steps_take_what_they_take_on_the_host_and_passes_stay_on_the_gpu(registry, settings):
    parameters = inspect(registry.resolve("llama").checkpoint_path()).parameters
    invariant = settings.model_copy(update={"batch_invariant": True})
    pace = Pace(1.4, "", "NVIDIA A100-SXM4-80GB")

    def repaired(steps, tokens=4096):
        step = {"type": "repair.lowrank", "rank": 4, "distill_steps": steps, "calibration_window": 128}
        asked = request(RTN, step, text={"source": "self", "tokens": tokens})
        return estimate(asked, registry, invariant, pace)

    most, none = repaired(100_000), repaired(0)
    assert most.seconds - none.seconds == pytest.approx(100_000 * 1024 * parameters / 3e10, rel=1e-3)
    assert "as measured on a 2-core CPU" in " ".join(most.assumptions)
    scored = repaired(0, tokens=10**6).seconds - none.seconds
    assert scored == pytest.approx(2 * (10**6 - 4096) * parameters / (1.4 * 134.5e6), rel=1e-2)


def test_on_a_gpu_a_pass_takes_what_it_took_there(registry, settings):
    tokens = 1_000_000
    info = inspect(registry.resolve("llama").checkpoint_path())
    pace = Pace(1.0, "as it is", "NVIDIA H100 80GB HBM3")
    asked = request(text={"source": "self", "tokens": tokens}, self_check=True)
    found = estimate(asked, registry, settings, pace).seconds
    assert found == pytest.approx(ENGINE_START_S + 2 * tokens * info.parameters / 134.5e6, rel=1e-3)


def test_what_the_reference_writes_is_counted_as_text_that_is_looked_at_and_as_its_own_work(registry, settings):
    reference, candidate = (inspect(registry.resolve(alias).checkpoint_path()) for alias in ("untied", "llama"))
    assert reference.parameters > candidate.parameters

    def repaired(own_windows):
        step = {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0, "calibration_window": 128}
        text = {"source": "self", "tokens": 4096}
        asked = request(RTN, step | {"own_windows": own_windows}, text=text, reference="untied")
        return estimate(asked, registry, settings, Pace(1.4, "as it is"))

    without, beside = repaired(0), repaired(32)
    tokens = 32 * 128
    work = tokens * reference.parameters / 2.6e10 + tokens * in_layers(registry) / 4e10
    assert beside.seconds - without.seconds == pytest.approx(1000 * work, rel=1e-2)
    assert any(f"and {tokens:,} that the reference writes itself" in line for line in beside.assumptions)


def test_what_a_mixture_of_widths_measures_is_counted_on_what_steps_before_it_leave(registry, settings):
    """On windows of 256 tokens, of which two are measured on, whatever else is looked at."""
    info = inspect(registry.resolve("llama").checkpoint_path())
    mixed = {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "calibration_window": 256}

    def found(*steps):
        asked = request(*steps, text={"source": "self", "tokens": 4096})
        return estimate(asked, registry, settings, Pace(1.4, "as it is"))

    for before in ([], [{"type": "prune.layers", "layers": [0]}]):
        layers = info.layers - len(before)
        passes = 2 * 256 * 5 * 4 * (layers + 1) / 2
        plain, whole = found(*before, mixed), found(*before, mixed | {"mixed": True})
        assert whole.seconds - plain.seconds == pytest.approx(1000 * passes * info.parameters / 4.9e10, rel=3e-3)
        assert any(f"as much as {passes:,.0f} tokens through the model" in line for line in whole.assumptions)
        assert not any("through the model" in line for line in plain.assumptions)


def test_a_calibration_is_estimated_with_both_texts_and_every_calibrator(registry, settings):
    few = estimate(calibration(calibrators=["temperature"]), registry, settings)
    many = estimate(calibration(), registry, settings)
    assert many.seconds > few.seconds
    assert many.documents == 218
    assert any(f"{len(WITH_BLOCKS)} calibrators" in line for line in many.assumptions)
