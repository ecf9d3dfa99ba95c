from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.refusals import refusal_of
from tests.unit.workers.mitigation.fisher import fisher_of
from workers.mitigation.gradients import Gatherer, Tape, backward, divergence_gradients_of
from workers.mitigation.objectives import OwnLabels, logits
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

KINDS = ["llama", "qwen2", "gemma2", "granite"]
FLOAT: Any = {"dtype": torch.float32}
TOKENS = torch.randint(0, 320, (3, 9), generator=torch.Generator().manual_seed(5))


def whole(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def linear_names(model):
    return {name: one for name, one in model.named_parameters() if "_proj.weight" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(tiny, tmp_path, kind):
    info = inspect(tiny(kind))
    with open_tensors(info, "cpu") as reader, torch.no_grad():
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        tape = Tape(skeleton, TOKENS, tmp_path)
        ours = logits(skeleton, tape.states[-1].read(0, 3))
        torch.testing.assert_close(ours, whole(info.path)(TOKENS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_gradients_are_autograds(tiny, tmp_path, kind):
    info = inspect(tiny(kind))
    noise = torch.Generator().manual_seed(1)
    with open_tensors(info, "cpu") as reader:

        def changed(name):
            tensor = reader.read(name).to(torch.float32)
            if "_proj.weight" in name:
                tensor = tensor + tensor.std() * 0.3 * torch.randn(tensor.shape, generator=noise.manual_seed(len(name)))
            return tensor

        teacher = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        reference = Tape(teacher, TOKENS, tmp_path, name="reference").states[-1]
        everything = frozenset(info.tensors)
        found, mean = divergence_gradients_of(
            info, changed, reference, teacher, TOKENS, tmp_path, names=everything, **FLOAT
        )
        model = whole(info.path)
        with torch.no_grad():
            p = model(TOKENS).logits.log_softmax(-1)
            for name, one in model.named_parameters():
                one.copy_(changed(name))
    windows = (p.exp() * (p - model(TOKENS).logits.log_softmax(-1))).sum((1, 2))
    named = linear_names(model)
    per_window = [torch.autograd.grad(one, list(named.values()), retain_graph=True) for one in windows]
    assert mean == pytest.approx(float(windows.detach().sum()) / TOKENS.numel(), rel=1e-4)
    assert found.keys() == named.keys()
    for index, name in enumerate(named):
        gradients = torch.stack([one[index] for one in per_window])
        scale = float(gradients.abs().max())
        torch.testing.assert_close(
            found[name].squares_OI, gradients.square().sum(0) / TOKENS.numel(), rtol=1e-3, atol=1e-5 * scale**2
        )


def test_own_labels_gradient_is_that_of_the_labels_drawn(tiny):
    """∇ log p(y) = W_yᵀ − Σ_v p_v W_v, pulled through the norm: every label that could be drawn is tried."""
    info = inspect(tiny("llama"))
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        hidden = torch.randn(1, 1, info.hidden_size, generator=torch.Generator().manual_seed(0))
        counts = {}
        leaf = hidden.clone().requires_grad_(True)
        log_p = logits(skeleton, leaf)[0, 0].log_softmax(-1)
        each = torch.stack([torch.autograd.grad(one, leaf, retain_graph=True)[0][0, 0] for one in log_p])
        for seed in range(400):
            got = OwnLabels(skeleton, seed).gradient(0, hidden)[0, 0]
            label = int((each - got).abs().sum(-1).argmin())
            torch.testing.assert_close(got, each[label], rtol=1e-4, atol=1e-5)
            counts[label] = counts.get(label, 0) + 1
        torch.testing.assert_close(
            OwnLabels(skeleton, 3).gradient(0, hidden), OwnLabels(skeleton, 3).gradient(0, hidden)
        )
    p = log_p.detach().exp()
    top = int(p.argmax())
    spread = (float(p[top] * (1 - p[top])) / 400) ** 0.5
    assert abs(counts.get(top, 0) / 400 - float(p[top])) < 5 * spread


def test_fisher_is_the_mean_of_squared_gradients_over_all_labels(tiny, tmp_path):
    """Against the exact diagonal, Σ_y p(y) (∂ log p(y))² summed over positions: an explicit loop over every label."""
    folder = tiny("llama", num_hidden_layers=1)
    info = inspect(folder)
    tokens = TOKENS[:1, :4]
    model = whole(folder)
    named = linear_names(model)
    state = dict(model.named_parameters())
    chosen = {name: named[name].detach() for name in named if "down_proj" in name or "v_proj" in name}

    def log_p(weights):
        return functional_call(model, {**state, **weights}, (tokens,)).logits.log_softmax(-1)[0]

    p = log_p(chosen).detach().exp()
    exact = {name: torch.zeros_like(one) for name, one in chosen.items()}
    jacobian = torch.func.jacrev(log_p, chunk_size=64)(chosen)
    for name, of in jacobian.items():
        exact[name] = (of.detach().square() * p[..., None, None]).sum((0, 1)) / tokens.numel()
    draws = 1500
    with open_tensors(info, "cpu") as reader:
        found = fisher_of(
            info, reader.read, tokens.repeat(draws, 1), tmp_path, names=frozenset(chosen), dtype=torch.float32
        )
    assert found.keys() == chosen.keys()
    for name, of in exact.items():
        squares = found[name].squares_OI
        assert float(squares.sum()) == pytest.approx(float(of.detach().sum()), rel=0.1)
        # weight by weight, as far as so many draws can tell
        assert float((squares - of.detach()).norm() / of.detach().norm()) < 0.3


def test_factors_are_the_moments_of_inputs_and_output_gradients(tiny, tmp_path):
    info = inspect(tiny("qwen2"))
    seen = {}
    with open_tensors(info, "cpu") as reader:
        found = fisher_of(
            info, reader.read, TOKENS, tmp_path, outputs_up_to=128, each=True, seed=7, dtype=torch.float32
        )
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        backward(
            Tape(skeleton, TOKENS, tmp_path, name="again"),
            OwnLabels(skeleton, 7),
            visit=lambda _, name, x, delta: seen.setdefault(name, []).append((x, delta)),
        )
    assert len(found) == len(seen) == 7 * info.layers
    for name, parts in seen.items():
        x = torch.cat([a.reshape(-1, a.shape[-1]) for a, _ in parts]).to(torch.float64)
        delta = torch.cat([b.reshape(-1, b.shape[-1]) for _, b in parts]).to(torch.float64)
        of = found[name]
        for got, expected in [
            (of.outputs_OO, delta.T @ delta / len(x)),
            (of.inputs_I, x.square().mean(0)),
            (of.outputs_O, delta.square().mean(0)),
        ]:
            torch.testing.assert_close(
                got.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()), msg=name
            )
        assert of.positions_NL.shape == TOKENS.shape
        torch.testing.assert_close(of.positions_NL.reshape(-1).double(), delta.square().sum(1), rtol=1e-3, atol=1e-9)


def test_where_a_block_ends_moments_and_positions_are_of_the_gradients_there(tiny, tmp_path):
    info = inspect(tiny("llama"))
    seen = {}
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        tape = Tape(skeleton, TOKENS, tmp_path)
        found = Gatherer(frozenset(), tape.positions, tmp_path, squares=False, blocks=True, each=True)
        told = {"visit_block": found.visit_block, "finish": found.finish}
        backward(tape, OwnLabels(skeleton, 7), **told)
        again = Tape(skeleton, TOKENS, tmp_path, name="again")
        backward(
            again, OwnLabels(skeleton, 7), visit_block=lambda layer, delta: seen.setdefault(layer, []).append(delta)
        )
    assert found.leaving.keys() == found.leaving_each.keys() == seen.keys() == set(range(info.layers))
    for layer, parts in seen.items():
        delta = torch.cat(parts).double()
        moment = torch.einsum("nld,nle->de", delta, delta) / TOKENS.numel()
        close = {"rtol": 1e-3, "atol": 1e-5 * float(moment.abs().max())}
        torch.testing.assert_close(found.leaving[layer].double(), moment, **close)
        torch.testing.assert_close(found.leaving_each[layer].double(), delta.square().sum(-1), rtol=1e-3, atol=1e-9)


def test_what_goes_to_disk_has_its_room_there_before_it_is_mapped(tiny, tmp_path, monkeypatch):
    """Writing to a mapped page without room would end the process."""
    info = inspect(tiny("llama"))
    mapped = []
    from_file = torch.from_file

    def told(name, **options):
        file = Path(name).stat()
        mapped.append(file.st_blocks * 512 >= file.st_size == 4 * options["size"])
        return from_file(name, **options)

    monkeypatch.setattr(torch, "from_file", told)
    with open_tensors(info, "cpu") as reader:
        fisher_of(info, reader.read, TOKENS, tmp_path, outputs_up_to=128)
    assert mapped == [True] * 2 * 7 * info.layers


def test_only_one_block_has_weights_at_a_time(tiny, tmp_path):
    """There and back."""
    info = inspect(tiny("llama"))
    seen = []
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)

        def note(way, index):
            real = [at for at, one in enumerate(skeleton.layers) if not any(p.is_meta for p in one.parameters())]
            seen.append((way, index, real))

        for index, layer in enumerate(skeleton.layers):
            layer.register_forward_hook(lambda *_, index=index: note("there", index))
        tape = Tape(skeleton, TOKENS, tmp_path)
        backward(tape, OwnLabels(skeleton, 0), visit_block=lambda index, _: note("back", index))
        note("after", -1)
    assert {way for way, _, _ in seen} == {"there", "back", "after"}
    assert all(real == ([index] if index >= 0 else []) for _, index, real in seen)


def test_a_head_that_overflows_is_told(tiny, tmp_path):
    info = inspect(tiny("llama"))
    with open_tensors(info, "cpu") as reader:

        def overflowing(name):
            tensor = reader.read(name)
            return tensor * 1e38 if name == "model.norm.weight" else tensor

        teacher = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        reference, names = Tape(teacher, TOKENS, tmp_path, name="reference").states[-1], frozenset(info.tensors)
        errors = (
            refusal_of(fisher_of, info, overflowing, TOKENS, tmp_path),
            refusal_of(
                divergence_gradients_of, info, overflowing, reference, teacher, TOKENS, tmp_path, names=names, **FLOAT
            ),
        )
    assert {error.code for error in errors} == {ErrorCode.ACTIVATIONS_NOT_FINITE}
