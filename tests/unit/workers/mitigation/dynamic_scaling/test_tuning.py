"""What is learned of a rounded weight: where it begins, its gradients in closed form, what stays."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.rounding import Rounded, round_weight
from workers.mitigation.dynamic_scaling.tuning import Learned, LearnedBlock, Tuning
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 320, (1, 12), generator=torch.Generator().manual_seed(6))
LINEAR = "mlp.down_proj.weight"

KEEP = torch.rand(6, 16, generator=torch.Generator().manual_seed(3)) > 0.3
WEIGHT = torch.randn(6, 16, generator=torch.Generator().manual_seed(4)) * KEEP


def rounded(*, symmetric: bool = False) -> Rounded:
    return round_weight(WEIGHT, torch.eye(16), Scheme(4, 8, symmetric), KEEP)


def test_it_begins_where_rounding_ended() -> None:
    for symmetric in (False, True):
        for rounding in (False, True):
            learned = Learned(rounded(symmetric=symmetric), KEEP, rounding=rounding)
            assert torch.equal(learned.weight(), rounded(symmetric=symmetric).weight())
            assert torch.equal(learned.finished().codes_OI, rounded(symmetric=symmetric).codes_OI)


def test_a_scales_gradient_is_the_sum_over_its_group() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    gradient_OI = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))
    learned.weight().backward(gradient_OI)  # type: ignore[no-untyped-call]
    closed_OG = (gradient_OI * rounded().weight()).reshape(6, 2, 8).sum(-1)
    torch.testing.assert_close(learned.factor_OG.grad, closed_OG)


def test_a_rounding_gradient_is_the_weights_times_the_scale_and_none_for_zeros_that_stay() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    gradient_OI = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))
    learned.weight().backward(gradient_OI)  # type: ignore[no-untyped-call]
    assert learned.offset_OI is not None
    closed_OI = gradient_OI * rounded().scale_OG.repeat_interleave(8, 1) * KEEP
    assert learned.offset_OI.grad is not None
    torch.testing.assert_close(learned.offset_OI.grad, closed_OI)


def test_an_offset_of_a_whole_step_moves_the_code_by_one_within_its_bits() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    assert learned.offset_OI is not None
    with torch.no_grad():
        learned.offset_OI.fill_(1.0)
    made = learned.finished()
    before = rounded().codes_OI.int()
    expected = torch.where(KEEP, (before + 1).clamp(max=15), before)
    assert torch.equal(made.codes_OI.int(), expected)
    assert bool((made.weight()[~KEEP] == 0).all())


def test_scales_are_stored_as_they_were_tuned() -> None:
    learned = Learned(rounded(), KEEP, rounding=False)
    with torch.no_grad():
        learned.factor_OG.fill_(0.013)
    made = learned.finished()
    assert torch.equal(made.scale_OG, (rounded().scale_OG * 1.013).bfloat16().float())
    assert torch.equal(made.weight(), learned.weight())


def test_a_norm_that_is_not_moved_is_unchanged() -> None:
    vector = torch.tensor([1.0, 0.5, 0.0]).bfloat16()
    block = LearnedBlock({}, {"norm.weight": vector}, {})
    assert torch.equal(block.vector("norm.weight").bfloat16(), vector)
    with torch.no_grad():
        block.factors["norm.weight"].fill_(0.1)
    torch.testing.assert_close(block.vector("norm.weight"), torch.tensor([1.1, 0.55, 0.05]))


@pytest.fixture(params=["llama", "gemma2"])
def tuned(tiny: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Tuning, Tape]]:
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
                skeleton,
                blocks,
                start.states[0],
                kwargs,
                teacher.states[-1],
                teacher.skeleton,
                activation_bits=None,
            ),
            teacher,
        )


def test_what_is_tuned_on_is_the_divergence_of_the_whole_model(tuned: tuple[Tuning, Tape]) -> None:
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


def test_its_gradients_are_those_of_differences(tuned: tuple[Tuning, Tape]) -> None:
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


def test_a_divergence_without_end_is_told(tuned: tuple[Tuning, Tape]) -> None:
    tuning, teacher = tuned
    teacher.states[-1].write(0, torch.full((1, 12, 64), float("nan")))
    with pytest.raises(HemostatError) as caught:
        tuning.run(1, 0)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE


def test_tuning_comes_nearer_where_there_is_something_to_gain(tuned: tuple[Tuning, Tape]) -> None:
    tuning, _ = tuned
    before, after = tuning.run(24, 0)
    assert after < before
    assert tuning.measure([0]) == pytest.approx(after)


def test_where_tuning_made_it_worse_nothing_stays_tuned(
    tuned: tuple[Tuning, Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
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
