"""The divergence from a reference and its gradient by what leaves the last block, against autograd in float64."""

import pytest
import torch

from app.models.checkpoint import inspect
from workers.mitigation.objectives import FromReference, head_of, logits
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.reading import open_tensors

KINDS = ["llama", "qwen2", "gemma2", "granite", "llama-untied"]
WINDOWS, LENGTH = 3, 50


def states(info, folder, dtype):
    """What leaves the last block of a reference, and of a model that is a little off."""
    draws = torch.Generator().manual_seed(2)
    reference = torch.randn(WINDOWS, LENGTH, info.hidden_size, generator=draws)
    kept = Activations(folder / "states.bin", (WINDOWS, LENGTH, info.hidden_size), dtype, torch.device("cpu"))
    kept.write(0, reference)
    moved = reference + 0.2 * torch.randn(reference.shape, generator=draws)
    return kept, moved.to(dtype)


def exact(info, read, other, reference, hidden):
    """Sum and gradient by autograd in float64."""

    def log_p(read, hidden_NLD):
        skeleton = Skeleton(info, read, device="cpu", dtype=torch.float64)
        norm, head = skeleton.head()
        found = head(norm(hidden_NLD)) / (getattr(skeleton.config, "logits_scaling", None) or 1)
        cap = getattr(skeleton.config, "final_logit_softcapping", None)
        return (found if cap is None else cap * torch.tanh(found / cap)).log_softmax(-1)

    leaf = hidden.double().requires_grad_(True)
    p = log_p(read, reference.double()).detach()
    total = (p.exp() * (p - log_p(other, leaf))).sum()
    return float(total.detach()), torch.autograd.grad(total, leaf)[0]


@pytest.mark.parametrize(
    ("kind", "apart"), [*((kind, False) for kind in KINDS), ("gemma2", True), ("llama-untied", True)]
)
def test_value_and_gradient_are_those_of_autograd_in_float64(tiny, tmp_path, kind, apart):
    info = inspect(tiny(kind))
    with open_tensors(info, "cpu") as reader:

        def other(name):
            tensor = reader.read(name).float()
            return tensor * 1.2 if apart and ("embed" in name or "lm_head" in name) else tensor

        reference, hidden = states(info, tmp_path, torch.float32)
        teacher, student = (Skeleton(info, read, device="cpu", dtype=torch.float32) for read in (reader.read, other))
        objective = FromReference(student, reference, teacher)
        found = torch.cat([objective.gradient(0, hidden[:2]), objective.gradient(2, hidden[2:])])
        total, slope = exact(info, reader.read, other, reference.read(0, WINDOWS), hidden)
    assert objective.total == pytest.approx(total, rel=1e-4)
    torch.testing.assert_close(found.double(), slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite"])
def test_in_bfloat16_it_is_no_further_from_float64_than_autograd_is(tiny, tmp_path, kind):
    info = inspect(tiny(kind))
    with open_tensors(info, "cpu") as reader:
        reference, hidden = states(info, tmp_path, torch.bfloat16)
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.bfloat16)
        objective = FromReference(skeleton, reference, skeleton)
        ours = objective.gradient(0, hidden)
        leaf = hidden.clone().requires_grad_(True)
        target = logits(skeleton, reference.read(0, WINDOWS)).log_softmax(-1).detach()
        theirs = (target.exp() * (target - logits(skeleton, leaf).log_softmax(-1))).sum()
        (naive,) = torch.autograd.grad(theirs, leaf)
        total, slope = exact(info, skeleton.read, skeleton.read, reference.read(0, WINDOWS), hidden)
    # Both round the gradient itself to bfloat16: a share of its size that neither can be better than.
    rounding = float(slope.norm()) * 2**-9
    assert float((ours.double() - slope).norm()) <= float((naive.double() - slope).norm()) + rounding
    assert abs(objective.total - total) <= abs(float(theirs.detach()) - total) + 1e-3 * total


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_of_a_skeleton_gives_its_logits(tiny, kind):
    info = inspect(tiny(kind))
    with open_tensors(info, "cpu") as reader, torch.no_grad():
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        hidden = torch.randn(LENGTH, info.hidden_size, generator=torch.Generator().manual_seed(0))
        ours = head_of(skeleton).logits(skeleton.norm()(hidden))
        torch.testing.assert_close(ours, logits(skeleton, hidden), rtol=1e-5, atol=1e-5)
