"""Hidden states of a made-up model of a few dozen tokens, with a damage that is known."""

from collections.abc import Callable

import torch

from workers.calibration.fitting.data import FitData
from workers.calibrators.protocol import RowContext
from workers.distributions.head import Head

D, V = 16, 53


def make_head(
    *, seed: int = 0, dtype: torch.dtype = torch.float64, cap: float | None = None, scale: float = 1.0
) -> Head:
    """A head of `V` tokens over `D` numbers whose rows are sure of something."""
    weight_VD = torch.randn(V, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return Head(weight_VD, None, scale, cap, f"head {seed}")


def make_data(
    damage: Callable[[torch.Tensor], torch.Tensor] = lambda hidden_TD: hidden_TD,
    *,
    rows: int = 600,
    documents: int = 12,
    seed: int = 1,
    reference_head: Head | None = None,
    candidate_head: Head | None = None,
) -> FitData:
    """Rows whose candidate is `damage` of the reference; float64, so that fits compare with float64 oracles."""
    head = reference_head or make_head()
    generator = torch.Generator().manual_seed(seed)
    mixing_DD = torch.randn(D, D, generator=torch.Generator().manual_seed(77), dtype=torch.float64) / D**0.5
    reference_TD = torch.randn(rows, D, generator=generator, dtype=torch.float64) @ mixing_DD
    return FitData(
        reference_TD=reference_TD,
        candidate_TD=damage(reference_TD),
        context=RowContext(torch.arange(1, rows + 1), torch.randint(0, V, (rows,), generator=generator)),
        document_T=torch.arange(rows) * documents // rows,
        reference_head=head,
        candidate_head=candidate_head or head,
    )
