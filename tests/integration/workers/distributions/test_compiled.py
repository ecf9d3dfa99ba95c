"""The compiled graphs: the promised accuracy on the demo model, one compilation for all lengths, the eager results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration.workers.distributions.conftest import DemoStates
from tests.support.distributions import Case, case, disturbed, logits64, make_head, oracle
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head
from workers.distributions.token_values import FIELDS

FLOATS = (
    "kl",
    "reverse_kl",
    "js",
    "tv",
    "logp_reference",
    "logp_candidate",
    "entropy_reference",
    "entropy_candidate",
    "top_probability_reference",
)
# torch's own, while it imports what it compiles with.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
ALLOWED: dict[Precision, float] = {"fast": 2e-3, "float32": 1e-4}


@pytest.fixture(scope="session")
def demo_head(smollm2: Path) -> Head:
    return Head.load(smollm2)


@pytest.fixture(scope="session")
def demo_oracle(demo_states: DemoStates, demo_head: Head) -> dict[int, dict[str, np.ndarray]]:
    """Float64 from the same hidden states and head, by bits; in slices, since a row takes 400 kB."""
    found: dict[int, dict[str, np.ndarray]] = {}
    for bits, candidate_TD in demo_states.candidates.items():
        parts = []
        for start in range(0, len(candidate_TD), 64):
            rows = slice(start, start + 64)
            a, b = (logits64(demo_head, states[rows]) for states in (demo_states.reference_TD, candidate_TD))
            parts.append(oracle(a, b, demo_states.next_T[rows]))
        found[bits] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found


@pytest.mark.parametrize("precision", ["fast", "float32"])
def test_means_on_the_demo_model_agree_with_float64(
    demo_states: DemoStates, demo_head: Head, demo_oracle: dict[int, dict[str, np.ndarray]], precision: Precision
) -> None:
    divergence = Divergence(demo_head, demo_head, precision=precision, device="cpu")
    previous = 0.0
    for bits, candidate_TD in demo_states.candidates.items():
        found = divergence(demo_states.reference_TD, candidate_TD, demo_states.next_T)
        right = demo_oracle[bits]
        for name in FLOATS:
            mean, expected = float(getattr(found, name).astype(np.float64).mean()), float(right[name].mean())
            assert mean == pytest.approx(expected, rel=ALLOWED[precision]), (bits, name)
        assert np.mean(found.top1_agree == right["top1_agree"]) == 1, bits
        assert np.mean(found.overlap5 == right["overlap5"]) > 0.995, bits
        assert np.mean(found.overlap10 == right["overlap10"]) > 0.99, bits
        assert np.mean(found.rank_of_reference_top == right["rank_of_reference_top"]) > 0.99, bits
        assert right["kl"].mean() > 2 * previous  # fewer bits, more damage: the three cases do differ
        previous = float(right["kl"].mean())


def test_two_rounded_heads_would_overstate_the_eight_bit_model(demo_states: DemoStates, demo_head: Head) -> None:
    """Why the difference form exists: the promise above could not be kept without it."""
    h, k, tokens = demo_states.reference_TD[:128], demo_states.candidates[8][:128], demo_states.next_T[:128]
    naive = oracle((h @ demo_head.weight_VD.T).double(), (k @ demo_head.weight_VD.T).double(), tokens)
    right = oracle(logits64(demo_head, h), logits64(demo_head, k), tokens)
    assert naive["kl"].mean() > 1.05 * right["kl"].mean()


def test_the_demo_model_has_exactly_no_divergence_from_itself(demo_states: DemoStates, demo_head: Head) -> None:
    h = demo_states.reference_TD
    found = Divergence(demo_head, demo_head, device="cpu")(h, h.clone(), demo_states.next_T)
    for name in ("kl", "reverse_kl", "js", "tv"):
        assert not getattr(found, name).any(), name


def test_compiled_graphs_give_what_the_eager_operations_give() -> None:
    """With every feature of a head at once; rounding differs where the compiler contracts."""
    reference = make_head(700, 48, spread=6, bias=True, softcap=8.0, scale=0.7)
    candidate = replace(reference, weight_VD=disturbed(reference.weight_VD, 0.02), softcap=9.0, scale=0.8)
    given: Case = case(reference, candidate, 200, by=0.05)
    arguments = (given.reference_TD, given.candidate_TD, given.next_T)
    compiled = Divergence(reference, candidate, device="cpu")(*arguments)
    with torch.compiler.set_stance("force_eager"):
        eager = Divergence(reference, candidate, device="cpu")(*arguments)
    for name in FIELDS:
        one, other = getattr(compiled, name), getattr(eager, name)
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6, err_msg=name)
        elif name.startswith("rank"):
            # Under a cap many logits are equal but for rounding, and a contraction orders those anew: places may be a
            # hundredth of the vocabulary apart. The ranks themselves are held to float64 elsewhere.
            places = np.abs(one.astype(np.int64) - other)
            assert np.mean(places <= 7) > 0.99, name
        else:
            assert np.mean(one == other) > 0.95, name


def test_one_compilation_serves_every_number_of_positions(demo_states: DemoStates, demo_head: Head) -> None:
    divergence = Divergence(demo_head, demo_head, device="cpu")
    divergence.warm_up()
    h, k, tokens = demo_states.reference_TD, demo_states.candidates[4], demo_states.next_T
    whole = divergence(h, k, tokens)
    with torch._dynamo.config.patch(error_on_recompile=True):
        again = Divergence(demo_head, demo_head, device="cpu")  # another job on the same head
        for rows in (slice(0, 1), slice(5, 132), slice(0, 129), slice(0, 256)):
            part = again(h[rows], k[rows], tokens[rows])
            assert np.array_equal(part.kl, whole.kl[rows])
