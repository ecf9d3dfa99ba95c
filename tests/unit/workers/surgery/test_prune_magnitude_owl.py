"""Shares as Wanda's with the same text, and what goes by a stable sort of all magnitudes by numpy."""

import numpy as np
import pytest
import torch

from tests.support.pruning import linears, operate, weights

OWL = {"sparsity": 0.6, "allocation": "owl", "owl_threshold": 2}


@pytest.mark.parametrize("scope", ["layer", "row"])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_smallest_go_in_shares_that_activations_decide(tiny, store, kind, scope):
    with (
        operate(tiny(kind), store, {"type": "prune.magnitude", "scope": scope} | OWL) as made,
        operate(tiny(kind), store, {"type": "prune.wanda", "scope": scope} | OWL) as wanda,
    ):
        after = weights(made.path)
        shares, theirs = (
            {change.name: (change.nominal_sparsity, change.zeros) for change in one.manifest.tensors}
            for one in (made, wanda)
        )
        assert made.manifest.steps[0].calibration_tokens == 6 * 48
    assert shares == theirs
    assert len({share for share, _ in shares.values()}) == 3
    before = weights(tiny(kind))
    for name, weight in after.items():
        if name not in linears(after):
            assert torch.equal(weight, before[name])
            continue
        values = before[name].double().numpy()
        rows = values if scope == "row" else values.reshape(1, -1)
        each, more = divmod(shares[name][1], len(rows))
        for number, row in enumerate(rows):
            row[np.argsort(np.abs(row), kind="stable")[: each + (number < more)]] = 0
        assert np.array_equal(weight.double().numpy(), rows.reshape(values.shape)), name


def test_without_it_no_text_is_read(tiny, store):
    def none(_):
        raise AssertionError("the text was asked for")

    with operate(tiny(), store, {"type": "prune.magnitude", "sparsity": 0.5}, calibration=none) as modified:
        assert modified.manifest.steps[0].calibration_tokens is None
