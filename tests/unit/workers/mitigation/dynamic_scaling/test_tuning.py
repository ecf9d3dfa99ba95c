"""Tuning on the divergence of the whole model: what it is, its gradients, what is kept."""

from contextlib import ExitStack

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.learned import Learned, LearnedBlock
from workers.mitigation.dynamic_scaling.rounding import round_weight
from workers.mitigation.dynamic_scaling.tuning import Tuning
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 320, (1, 12), generator=torch.Generator().manual_seed(6))
LINEAR = "mlp.down_proj.weight"


@pytest.fixture(params=["llama", "gemma2"])
def tuned(tiny, tmp_path, request):
    """A model whose down projections are on three bits, and another one that it is to come near; float32."""
    own, other = (inspect(tiny(request.param, num_hidden_layers=2, seed=seed)) for seed in (0, 1))
    with ExitStack() as stack:
        read, read_other = (stack.enter_context(open_tensors(info)).read for info in (own, other))
        teacher = Tape(Skeleton(other, read_other, dtype=torch.float32), TOKENS, tmp_path, name="teacher")
        skeleton = Skeleton(own, read, dtype=torch.float32)
        start = Tape(skeleton, TOKENS, tmp_path, name="own")
        blocks = []
        for index, layer in enumerate(skeleton.layers):
            named = {name: read(f"model.layers.{index}.{name}").float() for name, _ in layer.named_parameters()}
            weight_OI = named.pop(LINEAR)
            everything = torch.ones_like(weight_OI, dtype=torch.bool)
            made = round_weight(weight_OI, torch.eye(weight_OI.shape[1]), Scheme(3, 32, False), everything)
            # A norm of Gemma begins at 0, where no factor moves it.
            vectors = {name: tensor + 0.2 for name, tensor in named.items() if tensor.ndim == 1}
            fixed = {name: tensor for name, tensor in named.items() if tensor.ndim > 1}
            blocks.append(LearnedBlock({LINEAR: Learned(made, everything, rounding=False)}, vectors, fixed))
        _, kwargs = skeleton.calls(TOKENS)
        yield (
            Tuning(
                skeleton, blocks, start.states[0], kwargs, teacher.states[-1], teacher.skeleton, activation_bits=None
            ),
            teacher,
        )


def test_what_is_tuned_on_is_the_divergence_of_the_whole_model(tuned):
    tuning, teacher = tuned
    found = tuning._step(0, lambda: None)
    models = [
        AutoModelForCausalLM.from_pretrained(skeleton.info.path, dtype=torch.float32)
        for skeleton in (teacher.skeleton, tuning._skeleton)
    ]
    with torch.no_grad():
        for layer, block in zip(models[1].model.layers, tuning._blocks, strict=True):
            layer.mlp.down_proj.weight.copy_(block.weights[LINEAR].weight())
            for name, vector in block.vectors.items():
                layer.get_parameter(name).copy_(vector)
        p, q = (model(TOKENS).logits.log_softmax(-1) for model in models)
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)


def test_its_gradients_are_those_of_differences(tuned):
    tuning, _ = tuned
    for block in tuning._blocks:
        leaf = block.factors["input_layernorm.weight"]
        leaf.grad = torch.zeros_like(leaf)
        tuning._step(0, lambda: None)
        gradient_D = leaf.grad.clone()  # before any other step adds to it
        direction_D = gradient_D / gradient_D.norm()
        values = []
        for side in (1, -1):
            with torch.no_grad():
                leaf.add_(direction_D, alpha=side * 2e-3)
            values.append(tuning._step(0, lambda: None))
            with torch.no_grad():
                leaf.sub_(direction_D, alpha=side * 2e-3)
        slope = (values[0] - values[1]) / 4e-3
        assert slope == pytest.approx(float(gradient_D.norm()), rel=0.02)


def test_a_divergence_without_end_is_told(tuned):
    tuning, teacher = tuned
    teacher.states[-1].write(0, torch.full((1, 12, 64), float("nan")))
    with pytest.raises(HemostatError) as caught:
        tuning.run(1, 0)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE


def test_tuning_comes_nearer_where_there_is_something_to_gain(tuned):
    tuning, _ = tuned
    before, after = tuning.run(24, 0)
    assert after < before
    assert tuning.measure([0]) == pytest.approx(after)


def test_where_tuning_made_it_worse_nothing_stays_tuned(tuned, monkeypatch):
    """A model that is its own reference: every step leads away."""
    tuning, _ = tuned
    hidden_1LD = tuning._entering.read(0, 1)
    with torch.no_grad():
        for index in range(len(tuning._blocks)):
            hidden_1LD = tuning._call(index, hidden_1LD)
    tuning._target.write(0, hidden_1LD)
    tuning._teacher = tuning._skeleton
    monkeypatch.setattr("workers.mitigation.dynamic_scaling.tuning.RATE", 0.1)
    before, after = tuning.run(8, 0)
    assert after > before == pytest.approx(0, abs=1e-6)
    assert not any(bool(leaf.any()) for block in tuning._blocks for leaf in block.leaves()[0])
