from contextlib import ExitStack

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.stopping import Stop, StoppedError
from workers.mitigation.gradient_pruning.recovery import Recovery
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 320, (32, 64), generator=torch.Generator().manual_seed(2))  # 28 train: four steps an epoch


class Case:
    """A tiny reference, and as often as wanted a candidate that has lost every other weight of its MLPs."""

    def __init__(self, info, read, scratch):
        self.info, self._read = info, read
        self.teacher = Skeleton(info, read, device="cpu", dtype=torch.float32)
        self.reference = Tape(self.teacher, TOKENS, scratch, name="reference").states[-1]
        self.names = frozenset(name for name in info.tensors if ".mlp." in name)

    def pruned(self, name):
        """A tensor of the candidate."""
        tensor = self._read(name).to(torch.float32)
        if name in self.names:
            tensor = tensor.clone()
            tensor[:, ::2] = 0
        return tensor

    def models(self):
        """The reference and a candidate by transformers."""
        found = [AutoModelForCausalLM.from_pretrained(self.info.path, dtype=torch.float32) for _ in range(2)]
        with torch.no_grad():
            for name, one in found[1].named_parameters():
                one.copy_(self.pruned(name))
        return found

    def recovery(self, **options):
        """Of a fresh candidate."""
        skeleton = Skeleton(self.info, self.pruned, device="cpu", dtype=torch.float32)
        for index in range(len(skeleton.layers)):
            skeleton.block(index)
        return Recovery(skeleton, self.names, TOKENS, self.reference, self.teacher, **options)


@pytest.fixture(params=["llama", "gemma2"])
def case(tiny, tmp_path, request):
    info = inspect(tiny(request.param))
    with ExitStack() as stack:
        yield Case(info, stack.enter_context(open_tensors(info, "cpu")).read, tmp_path)


def test_divergence_falls_and_masks_stay(case):
    work = case.recovery(rate=0.003)
    found = work.run(seconds=None, steps=24)
    assert len(found) == work.steps == 24
    assert sum(found[-4:]) < 0.95 * sum(found[:4])  # an epoch each
    for name, linear in work.kept.linears.items():
        assert torch.equal(linear.weight != 0, case.pruned(name) != 0), name
    assert set(work.kept.linears) == case.names


def test_the_gradient_is_autograds_of_the_mean_divergence(case):
    models = case.models()
    work = case.recovery()
    seen = {}
    inner = work.kept.step

    def step(part):
        for name, linear in work.kept.linears.items():
            seen[name] = linear.weight.grad.clone()
        inner(part)

    work.kept.step = step
    value = work.step(0.0)
    start = work._start(0)
    tokens = TOKENS[start : start + 8]
    with torch.no_grad():
        p = models[0](tokens).logits.log_softmax(-1)
    mean = (p.exp() * (p - models[1](tokens).logits.log_softmax(-1))).sum(-1).mean()
    mean.backward()
    assert value == pytest.approx(float(mean.detach()), rel=1e-3)
    for name, one in models[1].named_parameters():
        if name in case.names:
            scale = float(one.grad.abs().max())
            torch.testing.assert_close(seen[name], one.grad, rtol=1e-2, atol=1e-3 * scale)


def test_what_decides_is_the_mean_divergence_of_windows_that_are_not_trained_on(case):
    work = case.recovery()
    seen = []
    inner = work._skeleton.calls
    work._skeleton.calls = lambda tokens: (seen.append(tokens), inner(tokens))[1]
    for _ in range(4):
        work.step(0.0)
    assert torch.equal(torch.cat(seen).unique(dim=0), TOKENS[:28].unique(dim=0))
    fresh, models = case.recovery(), case.models()
    with torch.no_grad():
        p, q = (model(TOKENS[28:]).logits.log_softmax(-1) for model in models)
        sums = (p.exp() * (p - q)).sum(-1).mean()
    assert fresh.measure() == pytest.approx(float(sums), rel=1e-3)


def test_it_ends_at_the_first_of_both_bounds(case):
    ticks = iter(range(1000))

    def clock():  # a second goes by between any two looks
        return float(next(ticks))

    told = []
    assert len(case.recovery().run(seconds=4, steps=100, clock=clock, progress=lambda *a: told.append(a))) == 3
    assert told[0] == ("recovery", 0, 100)
    assert len(case.recovery().run(seconds=1e9, steps=2)) == 2


def test_every_epoch_sees_every_window_once(case):
    work, again = case.recovery(seed=1), case.recovery(seed=1)
    for epoch in range(3):
        assert sorted(work._start(4 * epoch + turn) for turn in range(4)) == [0, 8, 16, 24]
    assert [work._start(turn) for turn in range(12)] == [again._start(turn) for turn in range(12)]


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_can_be_stopped_in_every_layer_forward_and_backward(case, recompute):
    layers, asked = case.info.layers, Stop()
    work = case.recovery(recompute=recompute)
    work.step(0.0, asked)
    assert asked.calls == 2 * layers
    before = {name: linear.weight.detach().clone() for name, linear in work.kept.linears.items()}
    with pytest.raises(StoppedError):
        work.step(0.0, Stop(layers + 2))  # on the way back
    assert all(torch.equal(linear.weight, before[name]) for name, linear in work.kept.linears.items())
