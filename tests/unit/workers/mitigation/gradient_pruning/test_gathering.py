"""Gradients at the reference, then at candidates that have lost what was cheapest so far: as many weights as each pass
has, with transformers' divergence."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import CheckpointInfo, inspect
from tests.unit.workers.mitigation.fisher import fisher_of
from workers.mitigation.gradient_pruning import gathering
from workers.mitigation.gradient_pruning.gathering import gather
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.callbacks import never_cancelled, no_progress
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 320, (4, 16), generator=torch.Generator().manual_seed(8))


@dataclass
class Case:
    """A tiny model, and what `gather` asked of every candidate."""

    info: CheckpointInfo
    read: Read
    scratch: Path
    candidates: list[dict[str, torch.Tensor]]
    found: list[dict[str, torch.Tensor]]

    @property
    def sizes(self):
        """Of every linear layer."""
        return {name: one.shape[0] * one.shape[1] for name, one in self.info.tensors.items() if "_proj.weight" in name}

    def gather(self, passes, *, even):
        """Half of the weights go, in float32."""
        tape = Tape(
            Skeleton(self.info, self.read, device="cpu", dtype=torch.float32), TOKENS, self.scratch, name="reference"
        )
        return gather(
            tape,
            self.info,
            self.read,
            self.sizes,
            TOKENS,
            self.scratch,
            share=0.5,
            passes=passes,
            even=even,
            seed=3,
            dtype=torch.float32,
            progress=no_progress,
            check_cancelled=never_cancelled,
        )

    def model(self, weights):
        """transformers' model with some other weights."""
        made = AutoModelForCausalLM.from_pretrained(self.info.path, dtype=torch.float32, attn_implementation="eager")
        with torch.no_grad():
            for name, weight in weights.items():
                made.get_parameter(name).copy_(weight)
        return made


def fisher(of):
    """The mean of the square and of the factors' product."""
    return (of.squares_OI + torch.outer(of.outputs_O, of.inputs_I)) / 2


@pytest.fixture
def case(tiny, tmp_path, monkeypatch):
    info = inspect(tiny("llama", num_hidden_layers=2))
    with open_tensors(info, "cpu") as reader:
        made = Case(info, lambda name: reader.read(name).float(), tmp_path, [], [])
        inner = gathering.divergence_gradients_of

        def told(info, read, *arguments, **options):
            made.candidates.append({name: read(name).clone() for name in made.sizes})
            gradients, mean = inner(info, read, *arguments, **options)
            made.found.append({name: fisher(of) for name, of in gradients.items()})
            return gradients, mean

        monkeypatch.setattr(gathering, "divergence_gradients_of", told)
        yield made


def test_the_divergence_of_every_candidate_is_transformers(case):
    _, _, told = case.gather(3, even=False)
    with torch.no_grad():
        p = case.model({})(TOKENS).logits.log_softmax(-1)
        qs = [case.model(candidate)(TOKENS).logits.log_softmax(-1) for candidate in case.candidates]
    assert told == [pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3) for q in qs]
    assert 0 < told[0] < told[1]


def test_what_goes_is_what_is_cheapest_by_all_passes_so_far(case):
    """By hand: ½ w² F, F at first the reference's, then the mean with the candidate's, which is scaled to one total."""
    folder = case.scratch / "by-hand"
    folder.mkdir()
    at_reference = fisher_of(case.info, case.read, TOKENS, folder, seed=3, dtype=torch.float32)
    weights = {name: case.read(name) for name in case.sizes}
    first = {name: fisher(at_reference[name]) for name in weights}
    prices, _, _ = case.gather(3, even=True)
    mean = first
    for passes, (candidate, found) in enumerate(zip(case.candidates, case.found, strict=True), 1):
        for name, weight in weights.items():
            price = weight.square() * mean[name]
            gone = candidate[name] == 0
            assert float(price[gone].max()) <= float(price[~gone].min()) * (1 + 1e-4), name
        scale = sum(float((w.square() * first[name]).sum()) for name, w in weights.items()) / sum(
            float((w.square() * found[name]).sum()) for name, w in weights.items()
        )
        mean = {name: (passes * one + scale * found[name]) / (passes + 1) for name, one in mean.items()}
    for name, weight in weights.items():
        torch.testing.assert_close(prices.of(name), weight.square() * mean[name] / 2, rtol=1e-3, atol=1e-12)


def test_gradients_where_blocks_end_are_autograds_at_the_labels_drawn(case):
    _, leaving, _ = case.gather(1, even=True)
    model = case.model({})
    seen = []
    for block in model.model.layers:
        block.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    sums = [torch.zeros(64, 64, dtype=torch.float64) for _ in range(2)]
    for window, tokens_L in enumerate(TOKENS):
        seen.clear()
        logits_TV = model(tokens_L[None]).logits[0]
        draws = torch.Generator().manual_seed(3 * 1_000_003 + window)
        labels_T1 = torch.multinomial(logits_TV.detach().softmax(-1), 1, generator=draws)
        slopes = torch.autograd.grad(logits_TV.log_softmax(-1).gather(-1, labels_T1).sum(), seen)
        for layer, slope in enumerate(slopes):
            delta = slope.reshape(-1, 64).double()
            sums[layer] += delta.T @ delta / TOKENS.numel()
    assert leaving.keys() == {0, 1}
    for layer, expected in enumerate(sums):
        scale = float(expected.abs().max())
        torch.testing.assert_close(leaving[layer].double(), expected, rtol=1e-2, atol=1e-3 * scale)
