"""Block by block must be the model: transformers' own forward pass is the oracle."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.blocks import SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from workers.surgery.blockwise.observers import Channels, SecondMoment
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(2, 300, (5, 24), generator=torch.Generator().manual_seed(3))
DENSE = ["llama", "llama-untied", "qwen2", "gemma2", "granite"]


@contextmanager
def walking(folder, scratch, *, dtype=torch.float32):
    info = inspect(folder)
    with open_tensors(info, "cpu") as reader:
        yield Walk(Skeleton(info, reader.read, device="cpu", dtype=dtype), TOKENS, scratch)


def final_states(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    kept = []
    model.model.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(TOKENS)
    return kept[0]


@pytest.mark.parametrize("kind", DENSE)
def test_the_last_block_gives_what_the_whole_model_gives(tiny, tmp_path, kind):
    with walking(tiny(kind), tmp_path) as walk:
        *_, last = walk.blocks()
        found = torch.cat([leaving for _, _, leaving in _again(walk, last)])
    expected = final_states(tiny(kind), torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def _again(walk, block):
    """The last block's outputs once more; its weights are released when the walk goes on."""
    module = walk.skeleton.block(block.index)
    assert module is block.module
    yield from block.outputs()


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_changed_block_is_what_the_next_one_sees(tiny, tmp_path, kind):
    name = "model.layers.0.mlp.down_proj.weight"
    entered = {}
    with walking(tiny(kind), tmp_path) as walk:
        for block in walk.blocks():
            entered[block.index] = torch.cat([entering for _, entering, _ in block.outputs()])
            if block.index == 0:
                block.linears[name].weight.data.zero_()
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32, attn_implementation="eager")
    model.get_parameter(name).data.zero_()
    kept = []
    model.model.layers[1].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(TOKENS)
    torch.testing.assert_close(entered[1], kept[0], rtol=1e-5, atol=1e-5)


def test_layers_that_share_their_input_are_one_group(tiny, tmp_path):
    with walking(tiny("llama"), tmp_path) as walk:
        block = next(walk.blocks())
        short = [tuple(name.split(".")[-2] for name in group) for group in block.groups]
    assert short == [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    assert block.inputs(block.groups[3]) == 128
    assert block.group_of("model.layers.0.self_attn.v_proj.weight") == block.groups[0]


def test_observers_see_every_token_once(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny("qwen2"), dtype=torch.float32)
    kept = []
    model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(TOKENS)
    x_TI = kept[0].reshape(-1, kept[0].shape[-1]).double()
    with walking(tiny("qwen2"), tmp_path) as walk:
        block = next(block for block in walk.blocks() if block.index == 1)
        group = block.groups[1]
        moment, channels = SecondMoment(block.inputs(group)), Channels(block.inputs(group))
        block.collect({group: moment})
        block.collect({group: channels})
    assert moment.tokens == channels.tokens == TOKENS.numel()
    torch.testing.assert_close(moment.mean().double(), x_TI.T @ x_TI / len(x_TI), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(channels.norm().double(), x_TI.square().mean(0).sqrt(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(channels.most.double(), x_TI.abs().amax(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(channels.absolute_I.double() / len(x_TI), x_TI.abs().mean(0), rtol=1e-4, atol=1e-6)


def test_a_block_that_overflows_is_named(tiny, tmp_path):
    with walking(tiny("llama"), tmp_path, dtype=torch.bfloat16) as walk, pytest.raises(HemostatError) as caught:
        for block in walk.blocks():
            if block.index == 1:
                block.linears["model.layers.1.mlp.down_proj.weight"].weight.data.fill_(3e38)
    assert caught.value.code is ErrorCode.ACTIVATIONS_NOT_FINITE
    assert "layer 1" in caught.value.detail


def test_only_one_block_has_weights_at_a_time(tiny, tmp_path):
    with walking(tiny("llama"), tmp_path) as walk:
        for block in walk.blocks():
            real = [
                index
                for index, layer in enumerate(walk.skeleton.layers)
                if not any(parameter.is_meta for parameter in layer.parameters())
            ]
            assert real == [block.index]


def test_a_checkpoint_with_block_corrections_is_refused(tiny):
    info = inspect(tiny("llama"))
    info = replace(info, config=info.config | {SECTION: {"sha256": "0" * 64}})
    with open_tensors(info, "cpu") as reader, pytest.raises(HemostatError, match="block corrections") as caught:
        Skeleton(info, reader.read, device="cpu")
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE


def test_a_mixture_of_experts_is_refused_with_what_would_do(tiny):
    info = inspect(tiny("mixtral"))
    with open_tensors(info, "cpu") as reader, pytest.raises(HemostatError) as caught:
        Skeleton(info, reader.read, device="cpu")
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert "MixtralForCausalLM" in caught.value.detail
    assert "LlamaForCausalLM" in caught.value.hint
