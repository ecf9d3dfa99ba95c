"""Chains of layers of two models, against whole models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.blocks import by_kind
from workers.diagnosis.attribute.matching import Gap
from workers.diagnosis.attribute.runs import Runs
from workers.diagnosis.attribute.sums import Clusters
from workers.surgery.store import CheckpointStore

GAP = Gap((1,), (), 2, 1)


def test_what_a_gap_costs_and_saves_is_summed_by_kind_of_token_too(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=4)
    odd_NL = TOKENS_NL % 2 == 1
    few_NL = (TOKENS_NL % 7 == 0) & ~odd_NL
    kinds = {"odd": odd_NL, "few": few_NL, "none": ~odd_NL & ~few_NL}
    with operate(folder, CheckpointStore(tmp_path / "store", 10**9), {"type": "prune.layers", "layers": [1]}) as made:
        exact_NL = kl(run(whole(folder)).logits, run(whole(made.path)).logits)
        with at_borders(folder, made.path, scratch=tmp_path) as both:
            runs = Runs(*both, Clusters.of(DOCUMENT_N), lambda: None, kinds)
            swapped, saved = runs.swapped(GAP), runs.saved(GAP)
    for name, mask_NL in kinds.items():
        expected = float(exact_NL[mask_NL].mean())
        for sums in (swapped, saved):  # the gap is all that is between the two models
            assert float(sums.by_kind[name].values()) == pytest.approx(expected, rel=1e-3)
            assert sums.by_kind[name].bottom.sum() == mask_NL.sum()
    assert sum(one.top for one in swapped.by_kind.values()) == pytest.approx(swapped.top, rel=1e-9)
    told = by_kind(swapped, saved, seed=0)
    assert [(one.name, one.tokens) for one in told] == [(name, int(of.sum())) for name, of in kinds.items()]
    shares = torch.tensor([float(exact_NL[of].sum() / exact_NL.sum()) for of in kinds.values()])
    assert [one.share for one in told] == pytest.approx(shares.tolist(), rel=1e-3)
    for one in told:
        assert one.nats.ci is not None and one.share_ci is not None and one.restored is not None
        assert one.restored.mean == pytest.approx(one.nats.mean, rel=1e-3)


def test_without_kinds_nothing_is_told_by_them(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=2)
    with at_borders(folder, folder, scratch=tmp_path) as both:
        total = Runs(*both, Clusters.of(DOCUMENT_N), lambda: None).total
    assert (total.by_kind, by_kind(total, seed=0)) == ({}, ())
