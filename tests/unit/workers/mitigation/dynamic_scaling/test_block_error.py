"""What changed layers cost at their block's output, against transformers' layer in float64."""

from contextlib import contextmanager

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import load
from workers.mitigation.dynamic_scaling.block_error import BlockErrors
from workers.mitigation.reconstruction import metric_root
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(3))
DRAWS = torch.Generator().manual_seed(4)
DRAWN = torch.randn(64, 64, generator=DRAWS, dtype=torch.float64)
# Directions of the hidden states that count more than others, tokens that do.
MOMENT = (DRAWN @ torch.diag(torch.logspace(0, -3, 64, dtype=torch.float64)) @ DRAWN.T).float()
WEIGHT = torch.rand(3, 16, generator=DRAWS)
QKV = ("q_proj", "k_proj", "v_proj")


@contextmanager
def second_block(folder, check=lambda: None):
    """Of a model's second block, given what the first one gives."""
    info = inspect(folder)
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        errors = BlockErrors(skeleton, TOKENS, check)
        with errors.block(1, entering(folder), metric_root(MOMENT), WEIGHT) as error:
            yield error, skeleton


def model(folder):
    return load(folder, torch.float64)


def entering(folder):
    with torch.no_grad():
        states = model(folder)(TOKENS, output_hidden_states=True).hidden_states[1]
    return states.bfloat16()


def by_hand(folder, changes, divide_I, bits):
    """`changes`: path within the block → its weight for divided inputs. In float64; both runs are given what the first
    block gives, rounded to 16 bits."""
    whole, states = model(folder), entering(folder).double()
    seen = []
    whole.model.layers[0].register_forward_hook(lambda *_: states)
    whole.model.layers[1].register_forward_hook(lambda _, __, out: seen.append(out))

    def given(_, args):
        x = args[0] / divide_I.double()
        if bits is None:
            return (x,)
        step = (x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).float().double()
        return ((x / step).round() * step,)

    with torch.no_grad():
        whole(TOKENS)
        for path, weight in changes.items():
            linear = whole.model.layers[1].get_submodule(path)
            linear.weight.copy_(weight)
            linear.register_forward_pre_hook(given)
        whole(TOKENS)
    error = seen[1] - seen[0]
    metric = 0.8 * MOMENT.double() / MOMENT.double().diagonal().mean() + 0.2 * torch.eye(64, dtype=torch.float64)
    return float((torch.einsum("nld,de,nle->nl", error, metric, error) * WEIGHT.double()).mean())


def changed(folder, paths, divide_I):
    """Path → the block's weight for divided inputs, on a coarse grid."""
    layer = model(folder).model.layers[1]
    with torch.no_grad():
        wholes = {path: (layer.get_submodule(path).weight * divide_I).float() for path in paths}
    return {path: (whole * 20).round() / 20 for path, whole in wholes.items()}


@pytest.mark.parametrize(
    ("kind", "bits", "parts"),
    [
        ("llama", None, QKV),
        ("qwen2", 4, QKV),
        ("gemma2", 8, QKV),
        ("llama", 4, ("o_proj",)),
        ("gemma2", None, ("o_proj",)),
    ],
)
def test_it_is_the_weighted_square_of_what_the_block_gives(tiny, kind, bits, parts):
    folder, paths = tiny(kind), [f"self_attn.{one}" for one in parts]
    divide_I = torch.rand(64, generator=torch.Generator().manual_seed(5)) + 0.5
    changes = changed(folder, paths, divide_I)
    with second_block(folder) as (error, _):
        found = error.of({f"model.layers.1.{path}.weight": one for path, one in changes.items()}, divide_I, bits)
    assert found == pytest.approx(by_hand(folder, changes, divide_I, bits), rel=2e-3)


def test_what_is_the_same_function_costs_nothing_and_each_question_stands_alone(tiny):
    folder = tiny("llama")
    path = "mlp.down_proj"
    name = f"model.layers.1.{path}.weight"
    inputs = inspect(folder).tensors[name].shape[1]
    divide_I = torch.rand(inputs, generator=torch.Generator().manual_seed(6)) + 0.5
    with second_block(folder) as (error, skeleton):
        weight_OI = skeleton.layers[1].get_submodule(path).weight.data.clone()
        coarse = {name: (weight_OI * 20).round() / 20}
        plain = error.of(coarse, torch.ones(inputs), None)
        assert error.of({name: weight_OI * divide_I}, divide_I, None) < 1e-9 * plain
        assert error.of(coarse, torch.ones(inputs), None) == plain
        assert torch.equal(skeleton.layers[1].get_submodule(path).weight.data, weight_OI)
    assert all(one.is_meta for one in skeleton.model.parameters()), "block and embedding are let go"
