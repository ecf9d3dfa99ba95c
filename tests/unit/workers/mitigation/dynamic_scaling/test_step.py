"""The whole step on tiny models: bits, zeros, fused layers, seeds, configuration, packed and simulated."""

import shutil

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.simulation import simulation_of
from app.models.checkpoint import inspect
from app.models.steps import quantize
from tests.support.pruning import load, operate, weights
from workers.mitigation.dynamic_scaling import fitting
from workers.mitigation.dynamic_scaling import step as step_module
from workers.mitigation.dynamic_scaling.block_error import BlockErrors
from workers.mitigation.gradients import Gatherer, Tape, backward
from workers.mitigation.objectives import OwnLabels
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.reading import open_tensors
from workers.surgery.store import CheckpointStore

DYNAMIC = {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "block_epochs": 0}
FITTED = DYNAMIC | {"bits": 3, "block_epochs": 8}
LAYERS = {"num_hidden_layers": 2}


def text(_):
    tokens_NL = torch.randint(0, 300, (4, 32), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "of the test", 1, 4)


def made(folder, store, *steps, seen=text):
    return operate(folder, store, *steps, calibration=seen)


def tensors(result):
    return weights(result.path)


def unpacked(result):
    """(the scheme of each module of a packed checkpoint, its weight by compressed-tensors)."""
    parts = tensors(result)
    config = QuantizationConfig.model_validate(inspect(result.path).config["quantization_config"])
    compressor = BaseCompressor.get_value_from_registry(config.format)
    modules = {name.rpartition(".")[0] for name in parts if name.endswith(("weight_packed", "weight_scale"))}
    schemes, found = {}, {}
    for module in modules:
        whole = [one for one in config.config_groups.values() if module in one.targets or one.targets == ["Linear"]]
        (schemes[module],) = whole
        own = {name.removeprefix(f"{module}."): one for name, one in parts.items() if name.startswith(f"{module}.")}
        found[module] = compressor.decompress(own, schemes[module])["weight"]
    return schemes, found


def long_text(_):
    tokens_NL = torch.randint(0, 300, (64, 32), generator=torch.Generator().manual_seed(1))
    return CalibrationText(tokens_NL, "longer, of the test", 1, 64)


def after_the_first_block(path):
    """(N, L, D) what leaves it on that text, by transformers."""
    model = load(path, torch.float32)
    with torch.no_grad():
        found = model(long_text(None).tokens_NL, output_hidden_states=True).hidden_states
    return found[1]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_blocks_that_are_fitted_come_nearer_to_the_sources_and_stay_on_their_grids(kind, tiny, shared):
    folder = tiny(kind, **LAYERS)
    result = made(folder, shared, FITTED, seen=long_text)
    record = result.manifest.steps[0]
    figures = record.figures
    assert result.manifest.bits_per_weight == pytest.approx(3 + 19 / 32)
    assert result.manifest.scheme == "simulated"
    assert any(warning.code == "no_biases" for warning in record.warnings) == (kind != "qwen2")
    assert 1 <= figures["blocks_fitted"] <= 2
    assert 0 < figures["block_error_after"] < figures["block_error_before"]
    plain = made(folder, shared, FITTED | {"block_epochs": 0}, seen=long_text)
    assert "blocks_fitted" not in plain.manifest.steps[0].figures
    source, fitted, unfitted = (after_the_first_block(one) for one in (folder, result.path, plain.path))
    assert float((fitted - source).norm()) < float((unfitted - source).norm())
    assert result.manifest.bits_per_weight == plain.manifest.bits_per_weight
    for name, tensor in tensors(result).items():
        if name.endswith("_proj.weight"):
            assert all(len(row.unique()) <= 8 for row in tensor.float().reshape(-1, 32))


def test_a_block_that_fitting_does_not_help_keeps_what_it_had(tiny, store, monkeypatch):
    monkeypatch.setattr(fitting, "RATE", 3.0)
    monkeypatch.setattr(fitting, "ROUNDING_RATE", 30.0)
    result = made(tiny("llama", **LAYERS), store, FITTED)
    figures = result.manifest.steps[0].figures
    assert figures["blocks_fitted"] == 0
    assert figures["block_error_after"] == figures["block_error_before"]
    plain = tensors(made(tiny("llama", **LAYERS), store, FITTED | {"block_epochs": 0}))
    for name, tensor in tensors(result).items():
        assert torch.equal(tensor, plain[name]), name


def test_zero_points_and_zeros_of_a_fitted_block_are_what_the_packed_form_holds(tiny, store, monkeypatch):
    """Zero points are sent far: they stay codes, and what was pruned stays 0."""
    monkeypatch.setattr(fitting, "ROUNDING_RATE", 0.5)
    monkeypatch.setattr(fitting, "ZERO_RATE", 0.5)
    monkeypatch.setattr(fitting.Fitting, "_error", lambda self, *_: next(self.told))
    monkeypatch.setattr(fitting.Fitting, "told", iter([2.0, 1.0] * 4), raising=False)
    folder, pruning = tiny("llama", **LAYERS), {"type": "prune.magnitude", "sparsity": 0.3}
    pruned = tensors(made(folder, store, pruning))
    plain = tensors(made(folder, store, pruning, FITTED | {"bits": 4}))
    _, packed = unpacked(made(folder, store, pruning, FITTED | {"bits": 4, "form": "packed"}))
    assert len(packed) == 14
    for module, weight in packed.items():
        name = f"{module}.weight"
        torch.testing.assert_close(weight.float(), plain[name].float(), rtol=1e-2, atol=1e-6)
        assert bool((plain[name][pruned[name] == 0] == 0).all())


def test_a_mixture_keeps_to_its_mean_and_layers_that_run_as_one_share_their_width(tiny, shared):
    result = made(tiny("llama", **LAYERS), shared, DYNAMIC | {"bits": 4.5, "mixed": True})
    bits = {change.name: change.bits_per_weight for change in result.manifest.tensors if "_proj" in change.name}
    mean = result.manifest.bits_per_weight
    assert 4.5 - 0.6 < mean <= 4.5 + (16 + 4.5) / 32
    assert len(set(bits.values())) > 1
    for layer in range(2):
        for together in (("self_attn.q", "self_attn.k", "self_attn.v"), ("mlp.gate", "mlp.up")):
            assert len({int(bits[f"model.layers.{layer}.{one}_proj.weight"]) for one in together}) == 1
    figures = result.manifest.steps[0].figures
    assert sum(count for name, count in figures.items() if name.startswith("modules_")) == 14


def test_rounded_activations_are_told_to_the_engine(tiny, shared):
    step = DYNAMIC | {"activation_bits": 8, "modules": ["mlp"]}
    result = made(tiny("llama", **LAYERS), shared, step)
    section = simulation_of(inspect(result.path).config)
    (entry,) = section.activations
    assert (entry.bits, entry.dynamic, entry.symmetric) == (8, True, True)
    assert len(entry.modules) == 6
    assert all(".mlp." in module for module in entry.modules)


def test_smoothing_looks_at_activations_before_they_are_rounded(tiny, tmp_path):
    """On rounded ones, rounding once more costs nothing, and no smoothing would ever be chosen."""
    folder = shutil.copytree(tiny("llama", **LAYERS), tmp_path / "outlier")
    tensors_of = load_file(folder / "model.safetensors")
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors_of[f"model.layers.0.{name}.weight"][3] = 200.0
    save_file(tensors_of, folder / "model.safetensors", metadata={"format": "pt"})
    step = DYNAMIC | {"bits": 8, "group_size": None, "symmetric": True, "activation_bits": 8}
    record = made(folder, CheckpointStore(tmp_path / "store", 10**9), step).manifest.steps[0]
    assert record.figures["smoothing_strength_mean"] >= 0.25


def test_a_bias_takes_the_mean_that_is_left(tiny, shared):
    """By transformers: what keys and queries of the second layer are on average, behind a first that is rounded too."""
    folder = tiny("qwen2", **LAYERS)
    result = made(folder, shared, DYNAMIC | {"bits": 3})
    tokens_NL = text(None).tokens_NL

    def mean(path, name, bias_O=None):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        linear = model.get_submodule(name)
        seen = []
        linear.register_forward_hook(lambda _, __, out: seen.append(out))
        with torch.no_grad():
            if bias_O is not None:
                linear.bias.copy_(bias_O)
            model(tokens_NL)
        return seen[0].flatten(0, 1).mean(0)

    source = load_file(folder / "model.safetensors")
    for name in ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"):
        wanted = mean(folder, name)
        without = mean(result.path, name, source[f"{name}.bias"].float()) - wanted
        assert float((mean(result.path, name) - wanted).norm()) < 0.1 * float(without.norm()), name


def test_tokens_outputs_and_ends_of_blocks_count_by_the_gradients_of_the_divergence(tiny, tmp_path, monkeypatch):
    """What smoothing, rounding and fitting are given, against gradients gathered apart and inputs by transformers."""
    folder = tiny("llama", **LAYERS)
    info = inspect(folder)
    tokens_NL = text(None).tokens_NL
    (tmp_path / "apart").mkdir()
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.bfloat16)
        tape = Tape(skeleton, tokens_NL, tmp_path / "apart")
        apart = Gatherer(frozenset(info.tensors), 128, tape.scratch, squares=False, blocks=True, each=True)
        told = {"visit": apart.visit, "visit_block": apart.visit_block, "finish": apart.finish}
        backward(tape, OwnLabels(skeleton, 5), **told)
    ends = {}
    powers = {}
    leaving = {}
    judges, see, fits = BlockErrors.block, step_module.see_inputs, step_module.Fitting

    def judged(self, index, entering_NLD, root_DD, weight_NL):
        ends[index] = root_DD, weight_NL
        return judges(self, index, entering_NLD, root_DD, weight_NL)

    def seen(own, moments, source=None):
        see(own, moments, source)
        powers.update({name: moment.own_II.diagonal().clone() for name, moment in moments.items()})

    def fitted(*arguments, **options):
        leaving.update({layer: one.clone() for layer, one in arguments[4].items()})
        return fits(*arguments, **options)

    monkeypatch.setattr(BlockErrors, "block", judged)
    monkeypatch.setattr(step_module, "see_inputs", seen)
    monkeypatch.setattr(step_module, "Fitting", fitted)
    step = FITTED | {"block_epochs": 1, "seed": 5}
    made(folder, CheckpointStore(tmp_path / "smoothed", 10**9), step)
    monkeypatch.setattr(step_module, "smooth_block", lambda *_: ({}, []))
    made(folder, CheckpointStore(tmp_path / "plain", 10**9), step)
    assert leaving.keys() == {0, 1}
    for layer, one in leaving.items():
        torch.testing.assert_close(one, apart.leaving[layer])
    assert ends.keys() == {0, 1}
    for layer, (root_DD, weight_NL) in ends.items():
        moment = apart.leaving[layer]
        metric = 0.8 * moment / moment.diagonal().mean() + 0.2 * torch.eye(len(moment))
        torch.testing.assert_close(root_DD @ root_DD.T, metric)
        power_NL = apart.leaving_each[layer]
        torch.testing.assert_close(weight_NL, 0.5 + 0.5 * power_NL / power_NL.mean())
    inputs = {}
    model = load(folder)
    for kind in ("q", "k", "v"):
        model.get_submodule(f"model.layers.0.self_attn.{kind}_proj").register_forward_pre_hook(
            lambda _, given, kind=kind: inputs.update({kind: given[0].float()})
        )
    with torch.no_grad():
        model(tokens_NL)
    for kind, given_NLI in inputs.items():
        name = f"model.layers.0.self_attn.{kind}_proj.weight"
        power_NL = apart.found[name].positions_NL
        weight_NL = 0.5 + 0.5 * power_NL / power_NL.mean()
        expected_I = (weight_NL[..., None] * given_NLI.square()).mean((0, 1))
        torch.testing.assert_close(powers[name], expected_I, rtol=1e-2, atol=1e-3 * float(expected_I.mean()))


@pytest.mark.parametrize(
    ("device", "fields", "format_"),
    [("cpu", {"activation_bits": 8, "group_size": None}, "int-quantized"), ("cuda", {}, "pack-quantized")],
)
def test_a_packed_mixture_says_of_every_module_how_it_is_packed(tiny, store, monkeypatch, device, fields, format_):
    monkeypatch.setattr(quantize, "served_devices", lambda: (device,))
    step = DYNAMIC | {"bits": 5.5, "mixed": True, "symmetric": True, "form": "packed"} | fields
    result = made(tiny("llama", **LAYERS), store, step)
    schemes, found = unpacked(result)
    for module, scheme in schemes.items():
        assert (scheme.weights.symmetric, scheme.weights.group_size) == (True, fields.get("group_size", 32))
        inputs = scheme.input_activations
        if fields:
            assert (inputs.num_bits, inputs.strategy, inputs.dynamic, inputs.symmetric) == (8, "token", True, True)
        else:
            assert inputs is None
        weight = found[module]
        rows = weight.reshape(-1, 32 if "group_size" not in fields else weight.shape[1])
        assert max(len(row.unique()) for row in rows) <= 2**scheme.weights.num_bits
    assert inspect(result.path).config["quantization_config"]["format"] == format_
    widths = {module: scheme.weights.num_bits for module, scheme in schemes.items()}
    assert len(widths) == 14
    assert set(widths.values()) == {4, 8}
    for layer in range(2):
        for together in (("self_attn.q", "self_attn.k", "self_attn.v"), ("mlp.gate", "mlp.up")):
            assert len({widths[f"model.layers.{layer}.{one}_proj"] for one in together}) == 1
