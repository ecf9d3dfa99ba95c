import json

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.disk import files_of_at_most
from tests.support.quantizing import divergence
from tests.unit.workers.mitigation.repair.support import PRUNE, RTN, operate, repair, text, weights, windows
from workers.mitigation.gradients import Gatherer, Tape, backward
from workers.mitigation.objectives import OwnLabels
from workers.mitigation.repair import step as step_module
from workers.mitigation.repair.adapter import bits_of
from workers.mitigation.repair.closed_form import Factors, Metric
from workers.mitigation.repair.distill import FINE_NATS, FINE_RATE, RATE, Distiller
from workers.mitigation.repair.step import RepairStep, gradient_windows
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.quantize_rtn import quantize
from workers.surgery.reading import open_tensors


@pytest.mark.parametrize(
    ("kind", "wound"),
    [
        ("llama", RTN),
        ("llama-untied", PRUNE),
        ("llama", {"type": "lowrank.svd", "rank": 20}),
        ("qwen2", {"type": "prune.channels", "ratio": 0.5}),
        ("gemma2", {"type": "prune.layers", "layers": [1]}),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value["type"]),
)
def test_it_takes_back_what_a_modification_lost(tiny, shared, kind, wound):
    with (
        operate(tiny(kind), shared.root, wound) as wounded,
        operate(tiny(kind), shared.root, wound, repair(8)) as repaired,
    ):
        figures = repaired.manifest.steps[-1].figures
        assert figures["kl_after_nats"] < figures["kl_before_nats"]
        lost = divergence(tiny(kind), wounded.path, tokens_NL=windows())
        left = divergence(tiny(kind), repaired.path, tokens_NL=windows())
        assert left < lost
        if wound in (RTN, PRUNE):
            assert left < 0.8 * lost
        before, after = weights(wounded.path), weights(repaired.path)
        assert after.keys() == before.keys()
        for name, weight in after.items():
            assert weight.dtype == before[name].dtype
            assert name.endswith("_proj.weight") or torch.equal(weight, before[name])


def test_uniform_rank_is_counted_in_the_bits(tiny, shared):
    with operate(tiny(), shared.root, RTN, repair(4, allocation="uniform")) as repaired:
        for change in repaired.manifest.tensors:
            assert change.bits_per_weight == pytest.approx(bits_of(change.shape, 4, 3 + 19 / 32))
            assert change.steps == (0, 1)
        numbers = sum(4 * sum(change.shape) for change in repaired.manifest.tensors)
        assert repaired.manifest.steps[-1].figures["adapter_mib"] == pytest.approx(2 * numbers / 2**20, abs=1e-3)


def test_ranks_go_where_they_save_the_most_nats(tiny, shared):
    """One layer lost much, the others next to nothing."""
    steps = (RTN | {"bits": 8, "layers": [0, 2]}, RTN | {"bits": 2, "layers": [1]})
    with operate(tiny(), shared.root, *steps, repair(4)) as repaired:
        adapter = weights(repaired.path / "adapter")
    ranks = {name: one.shape[0] for name, one in adapter.items() if "lora_A" in name}
    much = [rank for name, rank in ranks.items() if ".layers.1." in name]
    little = [rank for name, rank in ranks.items() if ".layers.1." not in name]
    # all but queries and keys, on which next to nothing hangs in a model of random weights
    assert sum(rank >= 8 for rank in much) == 5
    assert set(little) == {1}


@pytest.mark.parametrize("allocation", ["nats", "uniform"])
def test_closed_form_and_blocks_are_given_the_gradients_of_the_divergence(tiny, tmp_path, monkeypatch, allocation):
    """Those of the wounded model, gathered apart; with uniform ranks all errors count alike."""
    given = {}
    leaving = {}
    survey, blocks = step_module.Survey, step_module.Blocks

    def surveyed(*arguments, **options):
        given.update(options["gradients"])
        return survey(*arguments, **options)

    def fitted(*arguments, **options):
        leaving.update({layer: one.clone() for layer, one in options["leaving"].items()})
        return blocks(*arguments, **options)

    monkeypatch.setattr(step_module, "Survey", surveyed)
    monkeypatch.setattr(step_module, "Blocks", fitted)
    step = repair(4, allocation=allocation, block_epochs=1, seed=3)
    with operate(tiny(), tmp_path / "store", RTN) as wounded, operate(tiny(), tmp_path / "store", RTN, step):
        info = inspect(wounded.path)
        names = frozenset(name for name in info.tensors if name.endswith("_proj.weight"))
        if allocation == "uniform":
            assert not given
            assert not leaving
            return
        with open_tensors(info, "cpu") as reader:
            skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.bfloat16)
            (tmp_path / "apart").mkdir()
            tape = Tape(skeleton, windows(), tmp_path / "apart")
            wanted = {"squares": False, "blocks": True, "each": True, "outputs_up_to": 4096}
            apart = Gatherer(names, tape.positions, tape.scratch, **wanted)
            told = {"visit": apart.visit, "visit_block": apart.visit_block, "finish": apart.finish}
            backward(tape, OwnLabels(skeleton, 3), **told)
    assert given.keys() == names
    for name, of in given.items():
        expected = apart.found[name]
        for ours, theirs in ((of.outputs_OO, expected.outputs_OO), (of.positions_NL, expected.positions_NL)):
            torch.testing.assert_close(ours, theirs, msg=name)
    assert leaving.keys() == {0, 1, 2}
    for layer, one in leaving.items():
        torch.testing.assert_close(one, apart.leaving[layer])


def test_a_dense_weight_of_full_width_takes_the_adapter_for_nothing(tiny, shared):
    with operate(tiny(), shared.root, {"type": "prune.layers", "layers": [1]}, repair(4)) as repaired:
        assert {change.bits_per_weight for change in repaired.manifest.tensors} == {16.0}
    with operate(tiny(), shared.root, PRUNE, repair(4)) as sparse:
        assert all(change.bits_per_weight > 16 for change in sparse.manifest.tensors)


def test_blocks_are_fitted_between_closed_form_and_distillation(tiny, shared):
    options = {"calibration": text(64, 64)}
    with operate(tiny(), shared.root, RTN, repair(8, block_epochs=6), **options) as repaired:
        figures = repaired.manifest.steps[-1].figures
        assert figures["kl_after_nats"] == min(figures["kl_blocks_nats"], figures["kl_closed_form_nats"])
        assert figures["kl_blocks_nats"] < figures["kl_closed_form_nats"] < figures["kl_before_nats"]
        assert not repaired.manifest.steps[-1].warnings
    with operate(tiny(), shared.root, RTN, repair(8, block_epochs=6, distill_steps=4), **options) as repaired:
        trained = repaired.manifest.steps[-1].figures
        assert trained["kl_blocks_nats"] == figures["kl_blocks_nats"]
        assert trained["kl_after_nats"] <= figures["kl_after_nats"]


@pytest.mark.parametrize(("wound", "relative"), [(RTN, True), ({**RTN, "bits": 2}, False)])
def test_it_is_trained_at_the_rate_of_what_the_closed_form_leaves(tiny, tmp_path, monkeypatch, wound, *, relative):
    rates = []
    train = Distiller.train

    def told(self, steps, **options):
        rates.append(options["rate"])
        return train(self, steps, **options)

    monkeypatch.setattr(Distiller, "train", told)
    with operate(tiny(), tmp_path / "store", wound, repair(4, distill_steps=2)) as repaired:
        left = repaired.manifest.steps[-1].figures["kl_closed_form_nats"]
    assert 0 < left < 0.3
    assert relative == (left < FINE_NATS)
    assert [rate.relative for rate in rates] == [relative]
    assert rates[0].size == pytest.approx(FINE_RATE if relative else RATE * left / 0.3)


@pytest.mark.parametrize(
    "wound",
    [
        {"type": "quantize.rtn", "bits": 4, "group_size": 32},
        {"type": "quantize.awq", "bits": 4, "group_size": 32},
        {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "block_epochs": 0},
    ],
    ids=lambda step: str(step["type"]),
)
def test_it_helps_behind_scaled_channels_as_elsewhere(outliers, shared, wound):
    source = outliers()

    def left(of):
        return divergence(source, of.path, tokens_NL=windows())

    with (
        operate(source, shared.root, wound) as wounded,
        operate(source, shared.root, wound, repair(8)) as repaired,
    ):
        figures = repaired.manifest.steps[-1].figures
        assert figures["kl_closed_form_nats"] < 0.5 * figures["kl_before_nats"]
        assert left(repaired) < 0.5 * left(wounded)
        assert (repaired.path / "adapter/channels.npz").exists() == (wound["type"] != "quantize.rtn")
        others = {"others": lambda _: repaired.path / "adapter"}
        again = {"type": "adapter.lora", "adapter": "adapter"}
        with operate(source, shared.root, wound, again, **others) as merged:  # as the repair merged it
            found = weights(merged.path)
            for name, tensor in weights(repaired.path).items():
                assert torch.equal(found[name], tensor)


def test_what_has_nothing_in_it_is_neither_counted_nor_exported(tiny, shared):
    step = repair(4, allocation="uniform")
    with operate(tiny(), shared.root, RTN | {"layers": [2]}, step) as repaired:
        config = json.loads((repaired.path / "adapter/adapter_config.json").read_text())
        assert config["target_modules"]
        assert all(".layers.2." in module for module in config["target_modules"])
        numbers = sum(4 * sum(change.shape) for change in repaired.manifest.tensors if ".2." in change.name)
        figures = repaired.manifest.steps[-1].figures
        assert figures["adapter_mib"] == pytest.approx(2 * numbers / 2**20, abs=1e-3)
        assert (figures["rank_least"], figures["rank_most"]) == (0, 4)


_solve = Metric.solve


def _harmful(metric, error_OI, *, most=None):
    found = _solve(metric, error_OI, most=most)
    return Factors(-3 * found.up_OR, found.down_RI, found.gains_R)


def test_an_adapter_that_only_harms_is_emptied_and_costs_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Metric, "solve", _harmful)
    with (
        operate(tiny(), tmp_path / "store", RTN) as wounded,
        operate(tiny(), tmp_path / "store", RTN, repair()) as made,
    ):
        assert made.manifest.steps[-1].warnings[0].code == "empty_adapter"
        assert made.manifest.bits_per_weight == wounded.manifest.bits_per_weight
        assert made.manifest.steps[-1].figures["adapter_mib"] == 0
        assert (made.path / "adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("wound", "again"), [(RTN, True), (PRUNE, False)])
def test_iterations_wound_what_the_product_does_not_carry(tiny, shared, wound, again):
    """The base is the wound of something; with the adapter merged it is nearer to the reference than without
    iterations."""
    original = weights(tiny())
    step = repair(6, allocation="uniform")
    with (
        operate(tiny(), shared.root, wound, step) as once,
        operate(tiny(), shared.root, wound, step | {"iterations": 4}) as more,
    ):
        base = weights(more.path / "base")
        for name, weight in base.items():
            if name.endswith("_proj.weight"):
                if again:
                    torch.testing.assert_close(quantize(weight, bits=3, group_size=32, symmetric=False), weight)
                else:
                    assert int((weight == 0).sum()) == weight.numel() // 2
            else:
                assert torch.equal(weight, original[name])
        assert (
            more.manifest.steps[-1].figures["kl_closed_form_nats"]
            < (once.manifest.steps[-1].figures["kl_closed_form_nats"])
        )
        assert inspect(more.path / "base").layers == 3


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (90_000, {}),  # the adapter takes 100 thousand bytes
        (200_000, {"iterations": 2}),  # the weights that it goes on take more
    ],
)
def test_a_disk_that_is_full_when_the_adapter_is_written_is_told(tiny, tmp_path, size, options):
    with operate(tiny(), tmp_path / "store", RTN):  # what comes before is there
        pass
    with pytest.raises(HemostatError) as caught, files_of_at_most(size):
        operate(tiny(), tmp_path / "store", RTN, repair(16, allocation="uniform") | options)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert not list((tmp_path / "store").glob(".staging-*"))


def test_what_the_reference_writes_is_fitted_on_beside_the_text(tiny, tmp_path, monkeypatch):
    """It begins with tokens of the vocabulary that may begin one."""
    seen = []
    gathered = RepairStep._gradients

    def watched(self, context, tokens_NL):
        seen.append(tokens_NL)
        return gathered(self, context, tokens_NL)

    monkeypatch.setattr(RepairStep, "_gradients", watched)
    known = text(ordinary_V=torch.tensor([7]))
    with operate(tiny(), tmp_path / "store", RTN, repair(own_windows=16), calibration=known) as modified:
        step = modified.manifest.steps[-1]
    given = {tuple(row) for row in windows().tolist()}
    # one of each, in turn: gradients are of the first windows, and the last ones decide
    assert [tuple(row) in given for row in seen[0].tolist()] == [True, False] * 16
    assert bool((seen[0][1::2, 0] == 7).all())
    assert step.figures["own_text_s"] >= 0
    assert step.figures["kl_after_nats"] < step.figures["kl_before_nats"]


def test_gradients_are_of_a_quarter_of_a_long_text():
    assert gradient_windows(64, 512) == 16
    assert gradient_windows(288, 512) == 72
    assert gradient_windows(8, 512) == 8
    assert gradient_windows(3, 65536) == 1
