import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import load
from tests.unit.workers.mitigation.repair.support import RTN, operate, windows
from workers.mitigation.repair import blocks
from workers.mitigation.repair.adapter import merged
from workers.mitigation.repair.blocks import Blocks
from workers.mitigation.repair.closed_form import Factors, solve
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS = windows(32, 32)
HELD = list(Split.of(32).held_out)


def run(wounded, reference, scratch, factors, **options):
    ours, theirs = inspect(wounded), inspect(reference)
    scratch.mkdir()
    settings = {"pairs": range(ours.layers), "epochs": 4, "seed": 0} | options
    with open_tensors(ours, "cpu") as mine, open_tensors(theirs, "cpu") as reader:
        fitted = Blocks(
            Skeleton(ours, mine.read, device="cpu"),
            Skeleton(theirs, reader.read, device="cpu"),
            TOKENS,
            scratch,
            **settings,
        )
        return fitted.run(factors)


def errors(wounded, reference, rank):
    """The best product for each layer's error, as if all inputs had the same power."""
    ours, theirs = inspect(wounded), inspect(reference)
    found = {}
    with open_tensors(ours, "cpu") as mine, open_tensors(theirs, "cpu") as reader:
        for name in ours.tensors:
            if name.endswith("_proj.weight"):
                error_OI = reader.read(name).float() - mine.read(name).float()
                found[name] = solve(error_OI, torch.eye(error_OI.shape[1]), most=rank)
    return found


def distance(wounded, reference, factors, at=-1):
    """Mean squared error of hidden states on the windows that decide, by transformers, with the factors merged."""

    def states(path, adapter):
        model = load(path)
        with torch.no_grad():
            for name, one in adapter.items():
                weight = model.get_parameter(name)
                weight.copy_(merged(weight, one))
            found = model(input_ids=TOKENS[HELD], output_hidden_states=True).hidden_states[at]
        return found.float()

    return float((states(wounded, factors) - states(reference, {})).square().mean())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_what_leaves_the_model_comes_nearer_on_windows_that_were_not_trained_on(tiny, tmp_path, shared, kind):
    reference = tiny(kind)
    with operate(reference, shared.root, RTN) as wounded:
        given = errors(wounded.path, reference, 8)
        found = run(wounded.path, reference, tmp_path / "scratch", given)
        assert found.keys() == given.keys()
        assert all(found[name].rank == one.rank for name, one in given.items())
        before, after = (distance(wounded.path, reference, factors) for factors in (given, found))
        assert after < before < distance(wounded.path, reference, {})


def test_what_a_dropped_layer_did_is_in_the_target_of_the_one_before(tiny, tmp_path, shared):
    reference = tiny()
    with operate(reference, shared.root, {"type": "prune.layers", "layers": [1]}) as wounded:
        name = "model.layers.0.mlp.down_proj.weight"
        draws = torch.Generator().manual_seed(0)
        given = {name: Factors(1e-3 * torch.randn(64, 8, generator=draws), torch.randn(8, 128), torch.zeros(8))}
        found = run(wounded.path, reference, tmp_path / "scratch", given, pairs=[0, 2], epochs=40)
        before, after = (distance(wounded.path, reference, factors) for factors in (given, found))
        assert after < before


def test_a_block_that_it_does_not_help_keeps_what_it_came_with(tiny, tmp_path, shared, monkeypatch):
    reference = tiny()
    monkeypatch.setattr(blocks.FactorsOfBlock.__init__, "__kwdefaults__", {"rate": 100.0})
    with operate(reference, shared.root, RTN) as wounded:
        given = errors(wounded.path, reference, 4)
        found = run(wounded.path, reference, tmp_path / "scratch", given, epochs=1)
        for name, one in given.items():
            assert torch.equal(found[name].up_OR, one.up_OR)
            assert torch.equal(found[name].down_RI, one.down_RI)


def test_the_first_of_two_blocks_of_one_layer_keeps_what_it_came_with(tiny, tmp_path, shared):
    reference = tiny()
    with operate(reference, shared.root, {"type": "extend.duplicate", "layers": [1]}) as wounded:
        names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4)]
        draws = torch.Generator().manual_seed(0)
        given = {
            name: Factors(
                1e-2 * torch.randn(64, 4, generator=draws), torch.randn(4, 128, generator=draws), torch.zeros(4)
            )
            for name in names
        }
        found = run(wounded.path, reference, tmp_path / "scratch", given, pairs=[0, 1, 1, 2])
        kept = [torch.equal(found[name].up_OR, given[name].up_OR) for name in names]
        assert kept == [False, True, False, False]
