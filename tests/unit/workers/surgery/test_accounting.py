"""What is told of weights after several steps: bits of what they are now, errors against what they were made of."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.pruning import operate, weights
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.quantize_rtn import quantize

Tiny = Callable[..., Path]
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
SVD = {"type": "lowrank.svd", "rank": 8}
SMALL = {"calibration_windows": 4, "calibration_window": 16}
UP = "model.layers.{}.mlp.up_proj.weight"


def text(_):
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


@pytest.fixture
def manifest_of(tiny, shared):
    def make(*steps, other=None):
        with operate(tiny(), shared, *steps, calibration=text, others=lambda _: other) as modified:
            return modified.manifest

    return make


def told(manifest):
    return {change.name: change for change in manifest.tensors}


@pytest.mark.parametrize("step", [{"type": "prune.layers", "layers": [0]}, {"type": "extend.duplicate", "layers": [0]}])
@pytest.mark.parametrize("later", [RTN, RTN | {"form": "packed"}, {"type": "prune.wanda", "sparsity": 0.5} | SMALL])
def test_a_layer_with_another_number_is_compared_with_itself(manifest_of, step, later):
    shift = -1 if step["type"] == "prune.layers" else 1
    alone, after = told(manifest_of(later)), told(manifest_of(step, later))
    for layer in (1, 2):
        one, same = alone[UP.format(layer)], after[UP.format(layer + shift)]
        assert same.original_norm == one.original_norm
        if later["type"] == "quantize.rtn":  # what weights alone decide is the same
            assert same.reconstruction_error == one.reconstruction_error
        assert same.reconstruction_error < 0.6  # two random layers are further from each other than 1


def test_what_earlier_steps_did_goes_with_an_inserted_layer(manifest_of):
    changes = told(manifest_of(RTN | {"layers": [1]}, {"type": "extend.identity", "layers": [1]}))
    name = "model.layers.{}.mlp.down_proj.weight"
    assert changes[name.format(1)].bits_per_weight == changes[name.format(2)].bits_per_weight == 4 + 20 / 32
    assert name.format(0) not in changes


def test_parts_that_go_leave_the_scales_of_their_groups(manifest_of):
    """64 of the 128 inputs of `down_proj` stay, in the four groups of each row; rows that go take theirs along."""
    changes = told(manifest_of(RTN, {"type": "prune.channels", "ratio": 0.5} | SMALL))
    down, up = changes["model.layers.0.mlp.down_proj.weight"], changes[UP.format(0)]
    assert (down.shape, down.bits_per_weight) == ((64, 64), 4 + 4 * 20 / 64)
    assert down.nominal_bytes == 64 * (64 * 4 + 4 * 20) / 8
    assert (up.shape, up.bits_per_weight) == ((64, 64), 4 + 20 / 32)


def test_steps_of_stages_before_are_told_with_the_last_ones(manifest_of):
    # the second step looks at text, and so is a stage of its own
    made = manifest_of(RTN, {"type": "quantize.awq", "bits": 4, "group_size": 32, **SMALL})
    assert {len(made.steps), *(one.steps for one in made.tensors)} == {2, (0, 1)}


@pytest.mark.parametrize(
    "step",
    [
        {"type": "merge.linear", "other": "other"},
        {"type": "extend.width", "channels": 2, "noise": 0.1},
        {"type": "prune.sparsegpt", "sparsity": 0.5} | SMALL,
    ],
)
def test_what_leaves_its_grid_takes_all_its_bits(tiny, manifest_of, step):
    assert told(manifest_of(RTN, step, other=tiny()))[UP.format(0)].bits_per_weight == 16


@pytest.mark.parametrize(
    "step", [{"type": "prune.magnitude", "sparsity": 0.5}, {"type": "prune.wanda", "sparsity": 0.5} | SMALL]
)
def test_what_stays_on_its_grid_keeps_its_bits_and_two_factors_do_not(manifest_of, step):
    assert told(manifest_of(RTN, step))[UP.format(0)].bits_per_weight == 4 + 20 / 32
    factored = told(manifest_of(SVD))[UP.format(0)]
    assert factored.bits_per_weight == 16 * 8 * (128 + 64) / (128 * 64)
    assert factored.in_parts
    pruned = told(manifest_of(SVD, step))[UP.format(0)]
    assert pruned.bits_per_weight == 16
    assert not pruned.in_parts


def test_the_error_is_that_of_the_weights_that_lie_there(tiny, manifest_of):
    changes = told(manifest_of({"type": "prune.layers", "layers": [0]}, RTN))
    before = weights(tiny())[UP.format(2)]
    after = quantize(before, bits=4, group_size=32, symmetric=False)
    expected = float((after.double() - before.double()).norm() / before.double().norm())
    assert changes[UP.format(1)].reconstruction_error == pytest.approx(expected, rel=1e-9)


# ---- channels that were scaled


@pytest.fixture
def error_of(outliers, shared):
    def of(*steps):
        with operate(outliers(), shared, *steps, calibration=text) as modified:
            return modified.manifest.reconstruction_error

    return of


SCALING = [
    {"type": "quantize.awq", "bits": 8, "group_size": 32},
    {"type": "quantize.smoothquant", "bits": 8},
    {"type": "quantize.dynamic", "bits": 8, "group_size": 32},
]


@pytest.mark.parametrize("step", SCALING, ids=lambda step: str(step["type"]))
def test_scaled_channels_are_no_error(error_of, step):
    rounding = error_of({"type": "quantize.rtn", "bits": 8, "group_size": 32})
    assert error_of(step | SMALL) < 4 * rounding
