import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import load
from tests.unit.workers.mitigation.repair.support import operate, windows
from workers.mitigation.gradients import LayerGradients
from workers.mitigation.repair.closed_form import Factors, solve
from workers.mitigation.repair.survey import Possible, Survey
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors


def survey(wounded, reference, scratch, pairs, **options):
    """The survey and what it found, with every linear layer of the decoder."""
    ours, theirs = inspect(wounded), inspect(reference)
    scratch.mkdir()
    with open_tensors(ours, "cpu") as mine, open_tensors(theirs, "cpu") as reader:
        made = Survey(
            Skeleton(ours, mine.read, device="cpu"),
            mine.read,
            Skeleton(theirs, reader.read, device="cpu"),
            reader.read,
            windows(32, 32),
            scratch,
            pairs=pairs,
            names=frozenset(name for name in ours.tensors if name.endswith("_proj.weight")),
            rank=4,
            **options,
        )
        yield made
        yield made.run()
        yield made.reference.normed()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_what_a_dropped_layer_did_is_regressed_on_the_projection_before_it(tiny, tmp_path, kind):
    reference = tiny(kind)
    with operate(reference, tmp_path / "store", {"type": "prune.layers", "layers": [1]}) as wounded:
        made, found, _ = survey(wounded.path, reference, tmp_path / "scratch", [0, 2], most=64)
        name = "model.layers.0.mlp.down_proj.weight"
        assert made.regressed == [name]
        # the oracle: ridge regression in float64 on transformers' own hidden states
        seen = []
        ours = load(wounded.path)
        theirs = load(reference)
        ours.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        with torch.no_grad():
            mine = ours(input_ids=windows(32, 32), output_hidden_states=True).hidden_states[1]
            target = theirs(input_ids=windows(32, 32), output_hidden_states=True).hidden_states[2]
        x, y = seen[0].double().flatten(0, 1), (target.double() - mine.double()).flatten(0, 1)
        second = x.T @ x / len(x)
        ridge = 1e-2 * float(second.diagonal().mean()) * torch.eye(len(second), dtype=torch.float64)
        slope = torch.linalg.solve(second + ridge, x.T @ y / len(x)).T
        difference = found[name].factors.product().double() - slope
        assert float(difference.norm() / slope.norm()) < 0.02
        untouched = found["model.layers.1.mlp.down_proj.weight"]
        assert untouched.factors.rank == 0
        assert len(untouched.spare_RI) == 64


def test_directions_of_untouched_layers_are_those_of_most_power(tiny, tmp_path):
    _, found, _ = survey(tiny(), tiny(), tmp_path / "scratch", [0, 1, 2], most=5)
    seen = []
    model = load(tiny())
    model.model.layers[1].self_attn.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(input_ids=windows(32, 32))
    x = seen[0].double().flatten(0, 1)
    spare = found["model.layers.1.self_attn.q_proj.weight"].spare_RI.double()
    _, _, right = torch.linalg.svd(x, full_matrices=False)
    overlap = (spare / spare.norm(dim=1, keepdim=True)) @ right[:5].T
    torch.testing.assert_close(overlap.abs(), torch.eye(5, dtype=torch.float64), atol=0.02, rtol=0)
    assert bool((spare.norm(dim=1) <= 1 + 1e-6).all())


def test_the_error_and_the_final_states_are_those_of_the_models(tiny, tmp_path):
    wound = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
    with operate(tiny(), tmp_path / "store", wound) as wounded:
        _, found, states = survey(wounded.path, tiny(), tmp_path / "scratch", [0, 1, 2], most=64)
        with open_tensors(inspect(wounded.path), "cpu") as ours, open_tensors(inspect(tiny()), "cpu") as theirs:
            for name, one in found.items():
                error = theirs.read(name).float() - ours.read(name).float()
                torch.testing.assert_close(one.factors.product(), error, atol=1e-3, rtol=1e-2)
        model = load(tiny())
        with torch.no_grad():
            expected = model.model(input_ids=windows(32, 32)).last_hidden_state
        torch.testing.assert_close(states.read(0, 32).float(), expected.float(), atol=0.05, rtol=0.02)


def test_found_directions_come_before_spare_ones():
    factors = solve(torch.diag(torch.tensor([3.0, 2.0])), torch.eye(2))
    one = Possible(factors, torch.ones(2, 2))
    assert one.take(1).rank == 1
    three = one.take(3)
    assert three.rank == 3
    torch.testing.assert_close(three.product(), factors.product())
    assert one.take(9).rank == 4
    assert isinstance(one.take(0), Factors)


def test_an_error_counts_by_gradients_at_outputs_and_tokens_by_theirs(tiny, tmp_path):
    """Of the first block, whose inputs no repair has changed yet, as transformers has them."""
    wound = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
    draws = torch.Generator().manual_seed(6)
    with operate(tiny(), tmp_path / "store", wound) as wounded:
        gradients = {}
        for name, one in inspect(wounded.path).tensors.items():
            if name.endswith("_proj.weight"):
                outputs, inputs = one.shape
                # a few outputs and tokens that hold nearly all of it
                factor = torch.randn(outputs, 4, generator=draws) * torch.logspace(1, -2, outputs)[:, None]
                gradients[name] = LayerGradients(
                    squares_OI=None,
                    outputs_O=factor.square().sum(1),
                    outputs_OO=factor @ factor.T,
                    inputs_I=torch.zeros(inputs),
                    positions_NL=torch.rand(32, 32, generator=draws) ** 20,
                )
        _, found, _ = survey(wounded.path, tiny(), tmp_path / "scratch", [0, 1, 2], most=4, gradients=gradients)
        seen = {}
        model = load(wounded.path)
        for path, module in model.model.layers[0].named_modules():
            if path.endswith("_proj"):
                module.register_forward_pre_hook(
                    lambda _, given, path=path: seen.update({f"model.layers.0.{path}.weight": given[0]})
                )
        with torch.no_grad():
            model(input_ids=windows(32, 32))
        with open_tensors(inspect(wounded.path), "cpu") as ours, open_tensors(inspect(tiny()), "cpu") as theirs:
            assert len(seen) == 7
            for name, given in seen.items():
                error = theirs.read(name).float() - ours.read(name).float()
                of = gradients[name]
                weight_T1 = (0.5 + 0.5 * of.positions_NL / of.positions_NL.mean()).reshape(-1, 1).double()
                x_TI = given.double().flatten(0, 1)
                moment, plain = (weight_T1 * x_TI).T @ x_TI / len(x_TI), x_TI.T @ x_TI / len(x_TI)
                expected = solve(error, moment, of.outputs_OO, most=4).product()
                others = (
                    solve(error, plain, of.outputs_OO, most=4).product(),
                    solve(error, moment, of.outputs_O, most=4).product(),
                    solve(error, moment, None, most=4).product(),
                )
                apart = float((found[name].factors.product() - expected).norm())
                assert apart < 0.2 * min(float((one - expected).norm()) for one in others), name
