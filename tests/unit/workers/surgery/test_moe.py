"""Routing changed, on a mixture that was trained until its router chooses."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from tests.support.checked import checked
from tests.support.pruning import operate, weights
from tests.support.refusals import refusal_of
from tests.support.tiny import TEXT, make_checkpoint, make_tokenizer
from workers.surgery.quantize_rtn import quantize

ROUTER = "model.layers.1.block_sparse_moe.gate.weight"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny Mixtral, trained on one paragraph until its loss has halved."""
    folder = make_checkpoint(tmp_path_factory.mktemp("moe") / "trained", "mixtral", scale=1.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.tensor([make_tokenizer()(TEXT)["input_ids"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(40):
        loss = model(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        first, last = (float(loss.detach()) if step == 0 else first), float(loss.detach())
    assert last < first / 2
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def routing(folder):
    """(router logits of layer 1, next-token logits)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen = []
    gate = next(module for name, module in model.named_modules() if name.endswith("layers.1.mlp.gate"))
    gate.register_forward_hook(lambda module, args, _: seen.append(args[0].float() @ module.weight.float().T))
    with torch.no_grad():
        outputs = model(torch.tensor([make_tokenizer()(TEXT)["input_ids"]])).logits
    return seen[0].reshape(-1, 4), outputs


def test_it_routes(trained):
    logits, _ = routing(trained)
    share = torch.softmax(logits, -1).amax(-1).mean()
    assert float(share) > 0.3  # a router that chooses nothing gives 0.25
    assert len(logits.argmax(-1).unique()) > 1


def test_other_numbers_of_experts_are_transformers_own(trained, store):
    reference = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32, num_experts_per_tok=1)
    tokens = torch.tensor([make_tokenizer()(TEXT)["input_ids"]])
    with operate(trained, store, {"type": "moe.topk", "experts": 1}) as modified, torch.no_grad():
        _, found = routing(modified.path)
        assert modified.manifest.steps[0].figures == {"experts a token before": 2.0, "experts a token": 1.0}
        torch.testing.assert_close(found, reference(tokens).logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, routing(trained)[1], atol=1e-2)


def test_a_temperature_divides_the_routers_logits(trained, store):
    before, _ = routing(trained)
    with operate(trained, store, {"type": "moe.router", "temperature": 2.0}) as modified:
        changed = {change.name for change in modified.manifest.tensors}
        after = weights(modified.path)
    assert changed == {ROUTER.replace("layers.1", f"layers.{layer}") for layer in range(3)}
    assert torch.equal(after[ROUTER] * 2, weights(trained)[ROUTER])
    with operate(trained, store, {"type": "moe.router", "temperature": 2.0, "layers": [1]}) as modified:
        after, _ = routing(modified.path)  # the layers before it are as they were
    torch.testing.assert_close(after, before / 2, rtol=1e-4, atol=1e-4)


def test_noise_is_relative_and_seeded(trained, store):
    before = weights(trained)[ROUTER].float()
    found = []
    for seed in (0, 0, 1):
        with operate(trained, store, {"type": "moe.router", "noise": 0.5, "seed": seed, "layers": [1]}) as modified:
            found.append(weights(modified.path)[ROUTER].float())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert 0.35 < float((found[0] - before).std() / before.std()) < 0.65


def test_few_bits_are_round_to_nearest_a_row(trained, store):
    before = weights(trained)[ROUTER]
    with operate(trained, store, {"type": "moe.router", "bits": 3, "layers": [1]}) as modified:
        found = weights(modified.path)[ROUTER]
        (change,) = modified.manifest.tensors
    assert torch.equal(found, quantize(before, bits=3, group_size=None, symmetric=False))
    assert change.bits_per_weight == 3 + 19 / 64


def test_what_is_no_routing_is_refused(tiny):
    for model, step, pointer in (
        ("llama", {"type": "moe.topk", "experts": 1}, ""),
        ("gemma2", {"type": "moe.router", "bits": 4}, ""),
        ("mixtral", {"type": "moe.topk", "experts": 5}, "/experts"),
        ("mixtral", {"type": "moe.topk", "experts": 1, "layers": [0]}, "/layers"),
        ("mixtral", {"type": "moe.router", "bits": 4, "modules": ["experts"]}, "/modules"),
        ("mixtral", {"type": "moe.router", "bits": 4, "layers": [9]}, "/layers/0"),
    ):
        error = refusal_of(checked, tiny(model), step)
        assert error.code in {ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.UNKNOWN_MODULE}
        assert error.pointer == f"/r/0{pointer}", step
