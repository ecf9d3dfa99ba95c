"""Swaps and what is measured inside, on a device that takes no operand of the host: the numbers are the host's.

Gemma-2's attention is plain products: torch's fused one rounds apart on each device.
"""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.internals import DOCUMENT_N, TOKENS_NL
from tests.support.second_device import HELD, second_device
from tests.unit.workers.diagnosis.attribute.swapped import HEADS, noisy, pair, subset
from workers.diagnosis.attribute.changes import Inputs, differing, evidence
from workers.diagnosis.attribute.internals import Model, inner_bytes, internals
from workers.diagnosis.attribute.mixing import CONTROL, THEIRS, Mode
from workers.diagnosis.attribute.pair import opened
from workers.diagnosis.attribute.sites import EMBEDDING, sites_of
from workers.distributions import divergence
from workers.surgery.reading import open_tensors

TEXT = subset(windows=6, length=16)
CONTEXT = SimpleNamespace(progress=lambda *_: None, check_cancelled=lambda: None)
HARMED = [EMBEDDING, *(f"model.layers.1.{name}.weight" for name in ("self_attn.q_proj", "mlp.up_proj"))]
NORM = "model.layers.2.input_layernorm.weight"


def harm(weights):
    noisy(weights, *HARMED)
    weights[NORM] = torch.linspace(-0.4, 0.4, len(weights[NORM])).to(torch.bfloat16)


@pytest.fixture
def infos(tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "arithmetic", lambda precision, device: precision)
    folders = pair(tmp_path, harm, "gemma2", hidden_size=96, **HEADS)
    return tuple(map(inspect, folders))


def swapped(infos, scratch, device):
    """Of every part that differs what its swaps cost, and what its error is like."""
    scratch.mkdir()
    costs, errors = {}, {}
    with opened(*infos, TEXT, "bfloat16", device, scratch, CONTEXT) as (swapper, reads):
        sites = differing(sites_of(infos[0]), *infos, reads, CONTEXT.check_cancelled)
        inputs = Inputs(swapper.reference)
        costs["whole"] = swapper.kl((), into="candidate")
        for site in sites:
            for mode in (THEIRS, CONTROL, Mode("twin", 3)):
                costs[site.name, mode.key] = swapper.kl([site], mode=mode)
            costs[site.name, "restored"] = swapper.kl([site], into="candidate")
            errors[site.name] = evidence(site, reads, inputs, infos[1])
        swapper.release()
        costs["again"] = swapper.kl(sites[:1], mode=Mode("twin", 4))
    return costs, errors


def test_swaps_cost_what_they_cost_on_the_host_and_errors_are_alike(infos, tmp_path):
    here, errors = swapped(infos, tmp_path / "here", "cpu")
    with second_device() as device:
        there, alike = swapped(infos, tmp_path / "there", str(device))
    names = {name for name, _ in filter(lambda key: isinstance(key, tuple), here)}
    assert {"embed_tokens", "layers.1", "layers.1.self_attn.heads.1", "layers.2.input_layernorm", "lm_head"} <= names
    assert here.keys() == there.keys()
    for key, kl in here.items():
        assert np.array_equal(there[key], kl), key
    assert here["layers.1", "theirs"].mean() > 1e-4
    for name, error in errors.items():
        assert alike[name].model_copy(update={"low_rank_share": error.low_rank_share}) == error, name
    # Directions are found by way of products whose operands are transposed, which may round apart.
    shares = [one["layers.1.self_attn.q_proj"].low_rank_share for one in (alike, errors)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-5)


def inside(infos, scratch, device):
    scratch.mkdir()
    with open_tensors(infos[0], device) as ours, open_tensors(infos[1], device) as theirs:
        models = Model(infos[0], ours.read, device), Model(infos[1], theirs.read, device)
        return internals(models, TOKENS_NL, DOCUMENT_N, scratch)


def test_what_goes_on_inside_is_what_goes_on_on_the_host(infos, tmp_path):
    here = inside(infos, tmp_path / "here", "cpu")
    gc.collect()  # what tests before left on the device
    with second_device() as device:
        before = HELD.now
        there = inside(infos, tmp_path / "there", str(device))
        asked = inner_bytes(infos, *TOKENS_NL.shape)
        assert 0.75 * asked < HELD.most - before <= asked
    assert here.not_measured == ()
    assert here.activations.cascade.mean > 0
    assert there == here
