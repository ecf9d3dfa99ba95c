"""Configurations that vLLM and transformers read in different ways are run as vLLM runs them."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.copies import edit_json
from tests.support.tiny import make_checkpoint
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = torch.arange(2, 66)[None]


@torch.no_grad()
def hidden(folder):
    """(1, L, D) what leaves the last block of our modules, float32."""
    info = inspect(folder)
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        states, kwargs = skeleton.calls(TOKENS)
        for index in range(info.layers):
            found = skeleton.block(index)(states, **kwargs[index])
            states = found[0] if isinstance(found, tuple) else found
    return states


@torch.no_grad()
def oracle(folder, **changes):
    """The same of transformers' whole model, told explicitly what to compute. Its states end with the norm."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    for layer in model.model.layers:
        if "softcap" in changes:
            layer.self_attn.attn_logit_softcapping = changes["softcap"]
        if "activation" in changes:
            layer.mlp.act_fn = changes["activation"]
    caught = []
    model.model.norm.register_forward_pre_hook(lambda _, entered: caught.append(entered[0]))
    model(TOKENS)
    return caught[0]


def test_gemma_2_is_capped_where_its_file_has_no_word_of_it(tmp_path):
    folder = make_checkpoint(tmp_path / "m", "gemma2", scale=12.0)
    edit_json(folder / "config.json", attn_logit_softcapping=None)
    assert "attn_logit_softcapping" not in inspect(folder).config
    made = hidden(folder)
    torch.testing.assert_close(made, oracle(folder, softcap=50.0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made, oracle(folder, softcap=None), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "approximate"),
    [
        ({"hidden_act": "gelu"}, "tanh"),
        ({"hidden_act": "gelu", "hidden_activation": "gelu"}, "none"),
        ({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu"}, "none"),
    ],
)
def test_gemma_s_activation_is_that_of_hidden_activation(tmp_path, fields, approximate):
    folder = make_checkpoint(tmp_path / "m", model_type="gemma")
    edit_json(folder / "config.json", hidden_activation=None)
    edit_json(folder / "config.json", **fields)
    made = hidden(folder)
    gelu = torch.nn.GELU(approximate=approximate)
    other = torch.nn.GELU(approximate="none" if approximate == "tanh" else "tanh")
    near, far = (float((made - oracle(folder, activation=one)).abs().max()) for one in (gelu, other))
    assert near < 0.2 * far
