"""Errors that were planted where they hurt and where they do not, against noise of their norm in whole models."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.unit.workers.diagnosis.attribute.swapped import HEADS, changed_copy, first, subset, swapper, whole_model_kl
from workers.diagnosis.attribute.cause import Found, cause_of
from workers.diagnosis.attribute.examination import batches_of, twin_ratio
from workers.diagnosis.attribute.sites import sites_of
from workers.measuring.means import mean_of

# Three batches, of which twins are run on the first.
TEXT = subset(windows=180)
SITE = "layers.1.mlp.down_proj"
NAME = f"model.{SITE}.weight"
# Of the weights' norm: small enough for KL to be of second order in it.
SIZE = 0.1
DRAWS = 6


def along_the_gradient(model, module):
    """(O, I): the gradient of the text's loss."""
    logits = model(TEXT.tokens_NL).logits[TEXT.scored_NL]
    nn.functional.cross_entropy(logits, TEXT.next_NL[TEXT.scored_NL]).backward()
    assert module.weight.grad is not None
    return module.weight.grad


@torch.no_grad()
def off_the_inputs(model, module):
    """(O, I): noise in the half of the directions that the module's inputs have least of: their null space, nearly."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    model(TEXT.tokens_NL)
    hook.remove()
    (given_TI,) = seen
    _, directions_II = torch.linalg.eigh(given_TI.T @ given_TI)  # the weakest first
    quiet_IK = directions_II[:, : directions_II.shape[1] // 2]
    return noise(module.weight.shape, 77) @ quiet_IK @ quiet_IK.T


def anywhere(_, module):
    """(O, I): noise."""
    return noise(module.weight.shape, 99)


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("error", "bounds", "cause"),
    [
        (along_the_gradient, (1.25, np.inf), "aligned"),
        (off_the_inputs, (0.0, 0.8), "sheltered"),
        (anywhere, (0.8, 1.25), "size"),
    ],
)
def test_the_ratio_to_noise_is_that_of_whole_models_and_tells_where_an_error_points(
    tiny, tmp_path, error, bounds, cause
):
    reference = tiny("llama", **HEADS)
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    module = model.get_submodule(f"model.{SITE}")
    weight_OI = module.weight.detach().clone()

    def plus(delta_OI):
        return weight_OI + SIZE * weight_OI.norm() * delta_OI / delta_OI.norm()

    wrong_OI = plus(error(model, module)).to(torch.bfloat16)
    candidate = changed_copy(reference, tmp_path / "candidate", lambda weights: weights.update({NAME: wrong_OI}))
    with swapper(reference, candidate, tmp_path, TEXT, torch.float32) as found:
        batches = batches_of(found)
        assert batches < len(found.batches)
        (site,) = (one for one in sites_of(inspect(reference)) if one.name == SITE)
        ratio = twin_ratio(found, site, twins=DRAWS, seed=5)
        nats = mean_of(found.kl([site]).astype(np.float64), TEXT.where, seed=5)
        seen = found.positions(batches)
    assert ratio.clusters == "documents"
    text = first(TEXT, seen)
    part = whole_model_kl(reference, candidate, {}, text)
    drawn = [whole_model_kl(reference, reference, {NAME: plus(noise(weight_OI.shape, n))}, text) for n in range(DRAWS)]
    isotropic = np.mean(drawn, axis=0)
    expected = part.sum() / isotropic.sum()
    assert ratio.mean == pytest.approx(expected, rel=0.1)
    assert bounds[0] < ratio.ci[0] < ratio.mean < ratio.ci[1] < bounds[1]
    # The spread over documents: its standard error by linearization, of which an interval of 95 % has about two.
    _, document = np.unique(TEXT.where.document[:seen], return_inverse=True)
    sums = [np.bincount(document, weights=one) for one in (part, isotropic)]
    residual = sums[0] - expected * sums[1]
    error_of_it = (len(residual) / (len(residual) - 1) * (residual**2).sum()) ** 0.5 / sums[1].sum()
    for side in (ratio.mean - ratio.ci[0], ratio.ci[1] - ratio.mean):
        assert 1.4 * error_of_it < side < 4 * error_of_it
    told = Found(kind="module", module="down_proj", nats=nats, share=None, ratio=ratio, evidence=None)
    assert cause_of(told)[0] == cause
