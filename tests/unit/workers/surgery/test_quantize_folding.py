"""Folding changes weights, never the function: shown in float32 by transformers."""

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.quantizing import logits, text
from tests.support.step_run import selected, step_run
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.files import copy_companions
from workers.surgery.quantize_folding import Folded, Pair, pairs


def folded_everywhere(source, folder):
    """Every pair of every block scaled by random numbers between 1/4 and 4; the number of pairs."""
    info, step = inspect(source), {"type": "quantize.awq", "bits": 4, "group_size": 32}
    draw = torch.Generator().manual_seed(0)
    folder.mkdir()
    copy_companions(info.path, folder)
    scratch, count = folder.parent / "scratch", 0
    with step_run(source, scratch, step, weights=selected(source, step)) as context:
        walk = Walk(Skeleton(info, context.read, device="cpu", dtype=torch.float32), text(1, 16).tokens_NL, scratch)
        for block in walk.blocks():
            folded = Folded(context, block)
            for pair in pairs(block, info.architecture):
                channels = len(pair.shared(torch.ones(block.inputs(pair.group))))
                folded.scale(pair, 4 ** (2 * torch.rand(channels, generator=draw) - 1))
                count += 1
            folded.close({})
            moved = {
                name: context.channels.moved(name, context.read(name)) for name in info.tensors if block.prefix in name
            }
            for name, tensor in moved.items():  # what the record says is what was made of every tensor of the block
                made = block.module.get_parameter(name.removeprefix(block.prefix))
                torch.testing.assert_close(tensor, made.data, rtol=1e-6, atol=1e-7)
        context.write(folder, 10**9)
        errors = [change.reconstruction_error for change in context.changes.values()]
        assert max(error for error in errors if error is not None) < 2e-6  # what they stand for is what they were
    return count


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "granite"])
def test_the_function_stays(tmp_path, kind):
    """float32 weights, so that nothing but the sums' order differs; norms of Gemma-2 are not 0, and have a 1 added."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.support.tiny import _COMMON, CONFIGS

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(_COMMON | CONFIGS[kind])), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.ndim > 1 else parameter.add_(torch.rand_like(parameter) - 0.3)
    model.save_pretrained(tmp_path / "source")
    assert folded_everywhere(tmp_path / "source", tmp_path / "made") == 4 * 3
    tokens_NL = text(2, 32, 5).tokens_NL
    one, other = logits(tmp_path / "source", tokens_NL), logits(tmp_path / "made", tokens_NL)
    torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_heads_that_share_values_share_scales():
    pair = Pair(("o",), rows="v", head=2, repeats=3)
    assert pair.spread(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4]
    value_I = torch.tensor([1.0, 0, 2, 0, 3, 6, 0, 0, 0, 0, 0, 9])
    assert pair.shared(value_I).tolist() == [2, 2, 0, 3]
