from collections import Counter
from itertools import islice

import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.stopping import Stop, StoppedError
from tests.unit.workers.mitigation.repair.support import windows
from workers.distributions.head import Head
from workers.mitigation.divergence import Divergence
from workers.mitigation.optimizer import Rate
from workers.mitigation.repair.closed_form import Factors
from workers.mitigation.repair.distill import FINE_NATS, RATE, Distiller, rate_at
from workers.mitigation.split import Split
from workers.mitigation.training import _batches
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.reading import open_tensors

NAMES = ("model.layers.0.self_attn.v_proj", "model.layers.2.mlp.down_proj")


@pytest.fixture
def made(tiny, tmp_path):
    """A model, its reference (another one) and an adapter, all in float32."""
    reference, candidate = tiny("gemma2", seed=1), tiny("gemma2")
    tokens_NL = windows(8, 24)
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    states = Activations(tmp_path / "states.bin", (8, 24, 64), torch.float32, torch.device("cpu"))
    with torch.no_grad():
        states.write(0, model.model(input_ids=tokens_NL).last_hidden_state)
    draws = torch.Generator().manual_seed(0)
    shapes = {NAMES[0]: (32, 64), NAMES[1]: (64, 128)}
    factors = {
        f"{name}.weight": Factors(
            torch.randn(outputs, 3, generator=draws) / 10, torch.randn(3, inputs, generator=draws) / 10, torch.zeros(3)
        )
        for name, (outputs, inputs) in shapes.items()
    }
    info = inspect(candidate)
    heads = [Head.load(path, dtype=torch.float32) for path in (reference, candidate)]
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        distiller = Distiller(skeleton, factors, tokens_NL, states, Divergence(*heads))
    return distiller, factors, tokens_NL, reference, candidate


def test_gradients_are_those_of_autograd_through_the_whole_model(made):
    distiller, factors, tokens_NL, reference, candidate = made
    theirs, ours = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (reference, candidate))
    leaves = {
        name: (one.up_OR.clone().requires_grad_(True), one.down_RI.clone().requires_grad_(True))
        for name, one in factors.items()
    }
    parameters = dict(ours.named_parameters())
    changed = {name: parameters[name].detach() + up @ down for name, (up, down) in leaves.items()}
    with torch.no_grad():
        p = theirs(input_ids=tokens_NL).logits.log_softmax(-1)
    q = functional_call(ours, changed, kwargs={"input_ids": tokens_NL}).logits.log_softmax(-1)
    loss = (p.exp() * (p - q)).sum(-1).mean()
    loss.backward()
    distiller._gradients(range(8))
    for name, (up, down) in leaves.items():
        adapted = distiller._adapted[name]
        torch.testing.assert_close(adapted.up_OR.grad, up.grad, rtol=2e-3, atol=1e-5)
        torch.testing.assert_close(adapted.down_RI.grad, down.grad, rtol=2e-3, atol=1e-5)
    held_out = float((p.exp() * (p - q.detach())).sum(-1)[7:].mean())
    assert distiller.measure() == pytest.approx(held_out, rel=1e-3)


def test_training_lowers_what_it_is_trained_on(made):
    distiller, factors, _, _, _ = made
    distiller._split = Split(tuple(range(8)), tuple(range(8)))
    before = distiller.measure()
    assert distiller.train(15, seed=0, rate=Rate(5e-3)) == 15
    assert distiller.measure() < 0.98 * before
    trained = distiller.factors()
    assert not torch.equal(trained[f"{NAMES[0]}.weight"].up_OR, factors[f"{NAMES[0]}.weight"].up_OR)
    distiller.put(factors)
    assert distiller.measure() == before


def test_seconds_bound_it(made):
    distiller, *_ = made
    assert distiller.train(10**6, seed=0, seconds=0.5) < 10**6
    assert distiller.train(0, seed=0) == 0


def test_every_window_comes_as_often_as_any_other():
    first = list(islice(_batches(range(5), 2, 7), 10))
    assert first == list(islice(_batches(range(5), 2, 7), 10))
    assert first != list(islice(_batches(range(5), 2, 8), 10))
    assert set(Counter(window for batch in first for window in batch).values()) == {4}
    assert len(next(_batches((3,), 4, 0))) == 4


def test_the_rate_is_full_where_much_is_left_and_falls_in_proportion():
    assert rate_at(3.0) == rate_at(0.3) == Rate(RATE)
    assert rate_at(0.06).size == pytest.approx(RATE / 5)
    assert not rate_at(FINE_NATS).relative
    assert rate_at(0.0) == rate_at(-2e-9) == Rate(0.0)


def test_it_can_be_stopped_in_every_layer_forward_and_backward(made):
    distiller, *_ = made
    distiller.check_cancelled = asked = Stop()
    distiller._gradients([0, 1])
    assert asked.calls >= 6  # three layers, both ways
    distiller.check_cancelled = Stop(asked.calls)  # the last of the way back
    with pytest.raises(StoppedError):
        distiller._gradients([0, 1])
