"""KL and its gradient against float64 sums, finite differences and autograd."""

import pytest
import torch

from tests.support.calibration import D, make_data, make_head
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.objective import Objective
from workers.calibrators.lowrank import LowRank
from workers.calibrators.temperature import Temperature

HEADS = {
    "one": (make_head(), make_head()),
    "two": (make_head(), make_head(seed=4)),
    "capped": (make_head(cap=3.0, scale=2.0), make_head(seed=4, cap=2.0, scale=1.5)),
}


def noisy(hidden_TD: torch.Tensor) -> torch.Tensor:
    return hidden_TD + 0.3 * torch.randn(
        hidden_TD.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64
    )


def data_of(heads: str, rows: int = 40) -> FitData:
    reference, candidate = HEADS[heads]
    return make_data(noisy, rows=rows, documents=4, reference_head=reference, candidate_head=candidate)


def plain_kl(data: FitData, hidden_TD: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Σ p (ln p − ln q), written out."""

    def logits(hidden: torch.Tensor, head: object) -> torch.Tensor:
        u = hidden @ head.weight_VD.T  # type: ignore[attr-defined]
        cap = head.softcap  # type: ignore[attr-defined]
        return (u if cap is None else cap * torch.tanh(u / cap)) * head.scale  # type: ignore[attr-defined]

    log_p = logits(data.reference_TD, data.reference_head).log_softmax(1)
    log_q = (logits(hidden_TD, data.candidate_head) / temperature).log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


@pytest.mark.parametrize("heads", HEADS)
def test_the_divergence_is_the_sum_written_out(heads: str) -> None:
    data = data_of(heads)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    torch.testing.assert_close(
        objective.divergence(None, data), plain_kl(data, data.candidate_TD), rtol=1e-9, atol=1e-12
    )
    found = objective.divergence(Temperature(1.7), data)
    torch.testing.assert_close(found, plain_kl(data, data.candidate_TD, 1.7), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("heads", HEADS)
def test_the_gradient_is_that_of_autograd_and_of_finite_differences(heads: str) -> None:
    data = data_of(heads, rows=5)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    found = objective.gradient(data.reference_TD, data.candidate_TD)
    hidden = data.candidate_TD.clone().requires_grad_()
    plain_kl(data, hidden).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, hidden.grad, rtol=1e-9, atol=1e-12)
    step = 1e-6
    for column in range(D):
        moved = torch.zeros_like(data.candidate_TD)
        moved[:, column] = step
        difference = plain_kl(data, data.candidate_TD + moved) - plain_kl(data, data.candidate_TD - moved)
        torch.testing.assert_close(found[:, column], difference / (2 * step), rtol=1e-5, atol=1e-7)


def test_equal_states_have_no_divergence_and_no_gradient() -> None:
    data = make_data(rows=30)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    assert objective.mean(None, data) == 0.0
    assert float(objective.gradient(data.reference_TD, data.candidate_TD).abs().amax()) == 0.0


def test_a_row_that_is_certain_of_another_token_is_finite() -> None:
    data = make_data(lambda hidden_TD: -40 * hidden_TD, rows=30)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    torch.testing.assert_close(objective.divergence(None, data), plain_kl(data, data.candidate_TD))


def test_bf16_heads_stay_close_to_float64() -> None:
    """What is fitted in practice: bf16 heads and states, a small divergence, no bias from rounding logits."""
    head = make_head(dtype=torch.bfloat16)
    exact = make_data(lambda h: h + 0.02 * torch.randn(h.shape, generator=torch.Generator().manual_seed(8)), rows=400)
    data = FitData(
        exact.reference_TD.bfloat16(), exact.candidate_TD.bfloat16(), exact.context, exact.document_T, head, head
    )
    wide = make_head(dtype=torch.bfloat16)
    double = FitData(
        data.reference_TD.double(),
        data.candidate_TD.double(),
        exact.context,
        exact.document_T,
        *([type(wide)(wide.weight_VD.double(), None, 1.0, None, "wide")] * 2),
    )
    truth = float(plain_kl(double, double.candidate_TD).mean())
    assert abs(Objective(head, head, device="cpu").mean(None, data) / truth - 1) < 0.02


def test_memory_is_bounded_by_chunks() -> None:
    data = make_data(rows=700)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    sizes = [len(chunk) for chunk in objective.chunks(data)]
    assert sum(sizes) == 700
    assert max(sizes) <= objective.chunk < 700


def test_the_mean_of_a_correction_of_both_kinds() -> None:
    data = data_of("two")
    shift = torch.linspace(-1, 1, D, dtype=torch.float64)
    corrected = LowRank(torch.zeros(D, 1, dtype=torch.float64), torch.zeros(1, D, dtype=torch.float64), shift)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    expected = plain_kl(data, data.candidate_TD + shift).mean()
    assert objective.mean(corrected, data) == pytest.approx(float(expected), rel=1e-9)
