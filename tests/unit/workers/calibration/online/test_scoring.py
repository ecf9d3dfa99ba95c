import numpy as np
import pytest
import torch

from tests.support.distributions import disturbed, hidden_states, logits64, make_head
from tests.support.second_device import second_device
from tests.support.stopping import StoppedError, stop_after
from workers.calibration.online.scoring import RAW, Rows, Scorer, Scores, acts_on_logits, window_of
from workers.calibrators.base import Base
from workers.calibrators.identity import Identity
from workers.calibrators.kinds import Chain
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import Calibrator, RowContext
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias
from workers.distributions.head import Head

D, V = 32, 331
PROMPT, OUTPUT = list(range(5, 17)), list(range(40, 70))

pytestmark = pytest.mark.usefixtures("eager")


def rows(count: int = 30, *, width: int = D, seed: int = 0) -> Rows:
    reference_TD = hidden_states(count, width, seed=seed)
    positions_T = torch.arange(3, 3 + count)
    tokens_T = torch.arange(count) % V
    return Rows(reference_TD, disturbed(reference_TD, 0.3, seed=seed), tokens_T, RowContext(positions_T, tokens_T))


def oracle(reference: Head, candidate: Head, given: Rows, logits_TV: torch.Tensor | None = None) -> np.ndarray:
    """KL(reference‖candidate) in float64 from the definition."""
    log_p = logits64(reference, given.reference_TD).log_softmax(1)
    log_q = (logits64(candidate, given.candidate_TD) if logits_TV is None else logits_TV).log_softmax(1)
    return np.asarray((log_p.exp() * (log_p - log_q)).sum(1))


class ByPosition(Temperature):
    """A correction that depends on the position alone."""

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        return logits_TV / context.position_T[:, None].to(logits_TV.dtype)


def lowrank(seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        0.2 * torch.randn(D, 4, generator=generator),
        0.2 * torch.randn(4, D, generator=generator),
        0.05 * torch.randn(D, generator=generator),
    )


def bias() -> TokenBias:
    return TokenBias(torch.tensor([3, 100, 330]), torch.tensor([1.5, -2.0, 0.25]), V)


@pytest.mark.parametrize("heads", ["same", "differ", "capped"])
def test_raw_divergence_is_the_definition(heads: str) -> None:
    reference = make_head(V, D, spread=3.0, softcap=20.0 if heads == "capped" else None)
    candidate = reference if heads != "differ" else make_head(V, D, seed=7, spread=3.0)
    given = rows()
    scores = Scorer(reference, candidate, precision="float32", device="cpu").score(given, {})
    assert scores[RAW].kl_T == pytest.approx(oracle(reference, candidate, given), rel=2e-4)
    expected = logits64(reference, given.reference_TD).argmax(1) == logits64(candidate, given.candidate_TD).argmax(1)
    assert scores[RAW].agree_T.tolist() == expected.tolist()
    assert scores[RAW].finite_T.all()


def test_a_hidden_correction_is_scored_from_its_hidden_states() -> None:
    head, given, correction = make_head(V, D, spread=3.0), rows(), lowrank()
    scores = Scorer(head, head, precision="float32", device="cpu").score(given, {"calibrated": correction})
    corrected = correction.apply_hidden(given.candidate_TD, given.context)
    expected = oracle(head, head, given, logits64(head, corrected))
    assert scores["calibrated"].kl_T == pytest.approx(expected, rel=2e-4)
    assert abs(scores["calibrated"].kl_T - scores[RAW].kl_T).max() > 1e-2


def test_a_correction_of_logits_is_scored_from_its_logits_and_so_is_raw_beside_it() -> None:
    head, given = make_head(V, D, spread=3.0), rows()
    scores = Scorer(head, head, device="cpu").score(given, {"calibrated": bias(), "trial": ByPosition(1.5)})
    logits = logits64(head, given.candidate_TD)
    assert scores[RAW].kl_T == pytest.approx(oracle(head, head, given), rel=1e-4)
    biased = logits.clone()
    for token, number in ((3, 1.5), (100, -2.0), (330, 0.25)):
        biased[:, token] += number
    assert scores["calibrated"].kl_T == pytest.approx(oracle(head, head, given, biased), rel=1e-4)
    scaled = logits / given.context.position_T[:, None]
    assert scores["trial"].kl_T == pytest.approx(oracle(head, head, given, scaled), rel=1e-4)


def test_rows_keep_their_context_across_chunks() -> None:
    head, given = make_head(V, D, spread=3.0), rows(53)
    scorer = Scorer(head, head, device="cpu")
    whole = scorer.score(given, {"trial": ByPosition(2.0)})["trial"].kl_T
    scorer._chunk = 7
    assert scorer.score(given, {"trial": ByPosition(2.0)})["trial"].kl_T == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("correction", [Identity(), Temperature(1.0)])
def test_what_changes_nothing_saves_exactly_nothing(correction: Calibrator) -> None:
    head = make_head(V, D)
    for corrections in ({"calibrated": correction}, {"calibrated": correction, "trial": bias()}):
        scores = Scorer(head, head, device="cpu").score(rows(), corrections)
        assert np.array_equal(scores["calibrated"].kl_T, scores[RAW].kl_T)


def test_whether_a_correction_acts_on_logits_is_seen() -> None:
    assert acts_on_logits(bias(), V, device="cpu")
    assert acts_on_logits(Temperature(1.1), V, device="cpu")
    assert not acts_on_logits(lowrank(), V, device="cpu")
    assert not acts_on_logits(Identity(), V, device="cpu")


@pytest.mark.parametrize("corrections", [{}, {"calibrated": bias()}])
def test_a_row_that_is_not_finite_is_marked_and_touches_no_other(corrections: dict[str, Calibrator]) -> None:
    head, given = make_head(V, D, spread=3.0), rows()
    expected = Scorer(head, head, device="cpu").score(given, corrections)
    given.candidate_TD[4, 2] = float("nan")
    for name, scores in Scorer(head, head, device="cpu").score(given, corrections).items():
        assert np.flatnonzero(~scores.finite_T).tolist() == [4]
        assert np.isnan(scores.kl_T[4])
        others = np.arange(len(given)) != 4
        assert scores.kl_T[others] == pytest.approx(expected[name].kl_T[others], rel=1e-6)


def test_the_engine_term_is_the_distance_of_two_states_under_the_candidates_head() -> None:
    reference, candidate = make_head(V, D, spread=3.0), make_head(V, D, seed=3, spread=3.0)
    scorer = Scorer(reference, candidate, precision="float32", device="cpu")
    given = rows()
    other = disturbed(given.candidate_TD, 0.01, seed=9)
    log_p = logits64(candidate, other).log_softmax(1)
    log_q = logits64(candidate, given.candidate_TD).log_softmax(1)
    expected = np.asarray((log_p.exp() * (log_p - log_q)).sum(1))
    assert scorer.engine_term(other, given.candidate_TD, given.next_T).kl_T == pytest.approx(expected, rel=1e-3)
    assert not scorer.engine_term(given.candidate_TD, given.candidate_TD, given.next_T).kl_T.any()


def test_only_generated_positions_are_rows_and_each_knows_where_it_stands() -> None:
    window = window_of(PROMPT, OUTPUT)
    assert window == [*PROMPT, *OUTPUT[:-1]]
    states_TD = torch.arange(len(window)).float()[:, None].repeat(1, D)
    given = Rows.of_request(PROMPT, OUTPUT, states_TD, -states_TD)
    assert given.next_T.tolist() == OUTPUT
    assert given.context.token_T.tolist() == [PROMPT[-1], *OUTPUT[:-1]]
    assert given.context.position_T.tolist() == [len(PROMPT) + index for index in range(len(OUTPUT))]
    assert given.reference_TD[:, 0].tolist() == [len(PROMPT) - 1 + index for index in range(len(OUTPUT))]
    assert torch.equal(given.candidate_TD, -given.reference_TD)


def test_an_empty_prompt_leaves_out_the_first_token() -> None:
    states_TD = torch.zeros(len(OUTPUT) - 1, D)
    assert Rows.of_request([], OUTPUT, states_TD, states_TD).next_T.tolist() == OUTPUT[1:]
    alone = Rows.of_request([], [7], states_TD[:0], states_TD[:0])
    assert len(alone) == 0
    head = make_head(V, D)
    assert Scorer(head, head, device="cpu").score(alone, {"calibrated": bias()})["calibrated"].kl_T.size == 0


def test_joined_rows_are_scored_as_they_are_alone() -> None:
    head = make_head(V, D, spread=3.0)
    parts = [rows(5, seed=1), rows(11, seed=2)]
    scorer = Scorer(head, head, device="cpu")
    joined: Scores = scorer.score(Rows.concat(parts), {"calibrated": bias()})["calibrated"]
    alone = [scorer.score(part, {"calibrated": bias()})["calibrated"].kl_T for part in parts]
    assert joined.slice(0, 5).kl_T == pytest.approx(alone[0], rel=1e-6)
    assert joined.slice(5, 16).kl_T == pytest.approx(alone[1], rel=1e-6)


@pytest.mark.parametrize("heads", ["same", "differ"])
@pytest.mark.parametrize(
    "corrections",
    [{}, {"calibrated": lowrank()}, {"calibrated": Chain([lowrank(), bias()]), "trial": ByPosition(2.0)}],
    ids=["none", "hidden", "logits"],
)
def test_scores_on_another_device_are_those_of_the_host(corrections: dict[str, Base], heads: str) -> None:
    reference, given = make_head(V, D, spread=3.0), rows()
    candidate = reference if heads == "same" else make_head(V, D, seed=7, spread=3.0)

    def scored(device: torch.device) -> list[Scores]:
        scorer = Scorer(reference, candidate, precision="float32", device=device)
        there = {name: one.to(device, torch.bfloat16) for name, one in corrections.items()}
        term = scorer.engine_term(disturbed(given.candidate_TD, 0.01), given.candidate_TD, given.next_T)
        return [*scorer.score(given, there).values(), term]

    here = scored(torch.device("cpu"))
    with second_device() as device:
        there = scored(device)
    for one, other in zip(there, here, strict=True):
        for name, values in vars(one).items():
            assert np.array_equal(values, getattr(other, name)), name


def test_it_stops_between_chunks_when_told() -> None:
    head = make_head(V, D)
    for corrections in ({}, {"calibrated": bias()}):
        with pytest.raises(StoppedError):
            Scorer(head, head, device="cpu").score(rows(), corrections, check_cancelled=stop_after())
