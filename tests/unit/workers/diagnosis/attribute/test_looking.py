"""What is asked about the first parts, against whole models with the same weights."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.attempts import Context
from tests.unit.workers.diagnosis.attribute.swapped import (
    HEADS,
    Weights,
    changed_copy,
    noisy,
    subset,
    swapper,
    whole_model_kl,
)
from workers.diagnosis.attribute.changes import differing
from workers.diagnosis.attribute.isotropic import batches_of
from workers.diagnosis.attribute.looking import Looking
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import sites_of

# Three batches, of which pairs are run on the first.
TEXT = subset(windows=180)
UP, DOWN = "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"
VALUES, OUT = "layers.2.self_attn.v_proj", "layers.2.self_attn.o_proj"
ELSEWHERE = "layers.1.self_attn.q_proj"


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """The divergence's graphs run as they are written, without the seconds of a compiler."""
    with torch.compiler.set_stance("force_eager"):
        yield


def harm(weights: Weights) -> None:
    """Two errors that are the same to what follows, two that undo each other, and one that knows of no other."""
    for site, factor in ((UP, 1.125), (DOWN, 1.125), (VALUES, 2.0), (OUT, 0.5)):
        weights[f"model.{site}.weight"] *= factor
    noisy(weights, f"model.{ELSEWHERE}.weight", size=0.5)


def test_pairs_are_far_from_adding_up_where_errors_are_aligned_or_undo_each_other(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    reference = tiny("llama", **HEADS)
    candidate = changed_copy(reference, tmp_path / "candidate", harm)
    ours, theirs = inspect(reference), inspect(candidate)
    weights = [load_file(folder / "model.safetensors") for folder in (reference, candidate)]
    reads = (weights[0].__getitem__, weights[1].__getitem__)
    request = AttributeRequest.model_validate(
        {
            "kind": "attribute",
            "reference": {"model": "tiny"},
            "candidate": {"model": "changed"},
            "text": {"source": "inline", "documents": [{"id": "one", "text": "unused"}]},
            "levels": ["module"],
            "top": 5,
            "twins": 1,
        }
    )
    context = Context(Settings(home=tmp_path), tmp_path / "job")
    with swapper(reference, candidate, tmp_path, TEXT, torch.float32) as found:
        changed = differing(sites_of(ours), ours, theirs, reads, lambda: None)
        search = Search(found, changed, request.levels, request.budget, request.top, context)
        search.run()
        full = found.kl((), into="candidate")
        looking = Looking(found, search, reads, request, context, full)
        looking.run()
        assert batches_of(found) < len(found.batches)
        seen = found.positions(batches_of(found))
    assert looking.additivity is not None
    assert looking.additivity.pairs_tokens == seen
    pairs = {frozenset((one.first, one.second)): one for one in looking.additivity.pairs}
    planted = (UP, DOWN, VALUES, OUT, ELSEWHERE)
    assert set(pairs) == {frozenset(pair) for pair in combinations(planted, 2)}

    def kl(*sites: str) -> float:
        replaced = {name: weights[1][name] for name in (f"model.{site}.weight" for site in sites)}
        return float(whole_model_kl(reference, reference, replaced, TEXT)[:seen].mean())

    alone = {site: kl(site) for site in planted}
    for pair, told in pairs.items():
        together = kl(*pair)
        assert told.together.mean == pytest.approx(together, rel=0.03, abs=1e-6), pair
        assert told.ratio.mean == pytest.approx(together / sum(alone[site] for site in pair), rel=0.03, abs=1e-6), pair
    # an error twice as large costs four times as much, that of two parts that add up twice as much
    aligned, undone = pairs[frozenset((UP, DOWN))], pairs[frozenset((VALUES, OUT))]
    assert aligned.ratio.mean is not None
    assert 1.6 < aligned.ratio.mean < 2.5
    assert (aligned.far, aligned.near) == (True, False)
    # powers of two: the product of both is the reference's to the last bit
    assert (undone.together.mean, undone.ratio.mean) == (0, 0)
    assert (undone.far, undone.near) == (True, False)
    far = {pair for pair, told in pairs.items() if told.far}
    assert not any(ELSEWHERE in pair for pair in far)
    assert np.isfinite(full).all()
