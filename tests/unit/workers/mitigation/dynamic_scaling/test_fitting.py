"""A block's free numbers, fitted to what the source's block gives."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import load
from workers.mitigation.dynamic_scaling import fitting
from workers.mitigation.dynamic_scaling.fitting import Fitting
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.learned import Learned, LearnedBlock
from workers.mitigation.dynamic_scaling.rounding import round_weight
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 300, (16, 32), generator=torch.Generator().manual_seed(2))
HELD = list(Split.of(16).held_out)
DOWN = "mlp.down_proj.weight"
# Directions of the hidden states that count more than others.
DRAWN = torch.randn(64, 64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
MOMENT = (DRAWN @ torch.diag(torch.logspace(0, -3, 64, dtype=torch.float64)) @ DRAWN.T).float()


@contextmanager
def first_block(folder, scratch, names, scheme, dtype=torch.float32, **options):
    """(what fits it, what enters it, it with some weights rounded to nearest and nothing else free)."""
    info = inspect(folder)
    with ExitStack() as stack:
        read = stack.enter_context(open_tensors(info, "cpu")).read
        own, source = (Skeleton(info, read, device="cpu", dtype=dtype) for _ in range(2))
        hidden_NLD, _ = own.calls(TOKENS)
        entering = Activations(scratch / "entering.bin", tuple(hidden_NLD.shape), dtype, torch.device("cpu"))
        entering.write(0, hidden_NLD)
        fixed = {path: one.data.clone() for path, one in own.block(0).named_parameters()}
        weights = {}
        for name in names:
            weight_OI = fixed.pop(name)
            everything = torch.ones_like(weight_OI, dtype=torch.bool)
            made = round_weight(weight_OI, torch.eye(weight_OI.shape[1]), scheme, everything)
            weights[name] = Learned(made, everything, trained=True)
        settings = {"epochs": 4, "seed": 0} | options
        yield (
            Fitting(own, source, TOKENS, scratch, {0: MOMENT}, **settings),
            entering,
            LearnedBlock(weights, {}, fixed),
        )


def scaled(block, name, factor):
    """Every scale of a weight is so many times what it should be."""
    learned = block.weights[name]
    made = replace(learned.rounded, scale_OG=learned.rounded.scale_OG * factor)
    block.weights[name] = Learned(made, torch.ones_like(made.codes_OI, dtype=torch.bool), trained=False)


@pytest.mark.parametrize("factor", [1.06, 0.95])
def test_the_factor_that_makes_a_block_its_source_again_is_found(tiny, tmp_path, factor):
    """Eight bits: but for the factor on every scale of one layer, the block is the source's."""
    with first_block(tiny(), tmp_path, (DOWN,), Scheme(8, 32, False), epochs=150) as (fits, entering, block):
        scaled(block, DOWN, factor)
        before, after = fits.fit(0, entering, block)
        found_OG = block.weights[DOWN].finished().scale_OG / block.weights[DOWN].rounded.scale_OG
    assert float(found_OG.mean()) == pytest.approx(1 / factor, abs=0.004)
    assert after < 0.02 * before


@pytest.mark.parametrize("kept", [True, False])
def test_gradients_of_a_block_in_float16_are_large_enough_for_it(tiny, tmp_path, monkeypatch, kept):
    if not kept:  # as small as they are where a step has more numbers
        monkeypatch.setattr(fitting, "HALF_GRADIENTS", 2.0**-20)
    scheme = Scheme(8, 32, False, torch.float16)
    with first_block(tiny(), tmp_path, (DOWN,), scheme, torch.float16, epochs=60) as (fits, entering, block):
        scaled(block, DOWN, 1.02)
        before, after = fits.fit(0, entering, block)
    assert (after < 0.2 * before) == kept


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_the_error_is_that_of_the_block_in_directions_that_count_relative_to_what_it_adds(tiny, tmp_path, kind):
    """By transformers, in float64, on the windows that decide; and it falls."""
    folder = tiny(kind)
    names = (DOWN, "self_attn.o_proj.weight", "self_attn.q_proj.weight")
    with first_block(folder, tmp_path, names, Scheme(3, 32, False), epochs=20) as (fits, entering, block):
        rounded = {name: learned.weight().detach() for name, learned in block.weights.items()}
        before, after = fits.fit(0, entering, block)
        fitted = {name: learned.finished().weight() for name, learned in block.weights.items()}
    metric_DD = 0.8 * MOMENT.double() / MOMENT.double().diagonal().mean() + 0.2 * torch.eye(64).double()

    def size(gap_NLD):
        return float(((gap_NLD @ metric_DD) * gap_NLD).sum())

    def states(change):
        model = load(folder, torch.float32)
        with torch.no_grad():
            for name, weight_OI in change.items():
                model.get_parameter(f"model.layers.0.{name}").copy_(weight_OI)
            found = model(input_ids=TOKENS[HELD], output_hidden_states=True).hidden_states
        return found[0].double(), found[1].double()

    source = states({})
    told = [size(states(change)[1] - source[1]) / size(source[1] - source[0]) for change in (rounded, fitted)]
    assert [before, after] == pytest.approx(told, rel=1e-3)
    assert after < before


def test_windows_that_decide_are_not_trained_on(tiny, tmp_path, monkeypatch):
    seen = set()

    def told(call, trained, fetch, root, plan, **_):
        seen.update(window for chosen in plan for window in chosen.tolist())

    monkeypatch.setattr(fitting, "reconstruct", told)
    with first_block(tiny(), tmp_path, (DOWN,), Scheme(4, 32, False)) as (fits, entering, block):
        before, after = fits.fit(0, entering, block)
    assert seen == set(range(14))
    assert before == after
