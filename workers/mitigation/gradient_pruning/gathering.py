"""The gradients of several passes: at the reference first, then at candidates of rising sparsity.

The candidates of the passes are cheap: the weights of lowest price so far are zeroed, nothing is reconstructed. They
tell where it hurts; what is kept in the end is decided by the prices accumulated over all passes.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from app.models.checkpoint import CheckpointInfo
from workers.mitigation.gradient_pruning.budget import counts_by_price, histogram, step_share, uniform_counts
from workers.mitigation.gradient_pruning.score import Importance, Prices, fisher_diagonal
from workers.mitigation.gradients import Gatherer, LayerGradients, Tape, divergence_gradients_of, gather_fisher
from workers.surgery.blockwise.skeleton import Read
from workers.surgery.callbacks import CheckCancelled, Progress
from workers.surgery.prune_masks import lowest

# takes a weight's name and the weight as the reference has it, gives it scaled as the checkpoint's is
Moved = Callable[[str, torch.Tensor], torch.Tensor]


def gather(
    tape: Tape,
    info: CheckpointInfo,
    read: Read,
    sizes: Mapping[str, int],
    tokens_NL: torch.Tensor,
    scratch: Path,
    *,
    share: float,
    passes: int,
    even: bool,
    seed: int,
    dtype: torch.dtype,
    importance: Importance = fisher_diagonal,
    moved: Moved = lambda _, weight_OI: weight_OI,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> tuple[Prices, dict[int, torch.Tensor], list[float]]:
    """(prices of the addressed weights, layer → E[δ δᵀ] at the block's output, KL at each pass's candidate).

    `tape`: the reference on the windows; `info`, `read`: the checkpoint that is pruned; `sizes`: weights of each
    addressed module; `even`: every module loses the same share. `moved`: what takes the reference's weights to the
    checkpoint's frame, where steps before scaled channels (default: it is the same).
    """
    names = frozenset(sizes)
    prices = Prices(read, importance)
    leaving: dict[int, torch.Tensor] = {}
    divergences = []
    for turn in range(passes):
        folder = scratch / f"pass-{turn}"
        folder.mkdir()
        if turn == 0:
            gatherer = Gatherer(names, tape.positions, folder, blocks=True)
            gather_fisher(tape, gatherer, seed)
            _move(gatherer.found, moved)
            prices.add(gatherer.found)
            leaving = gatherer.leaving
            continue
        counts = counts_of(prices, sizes, step_share(share, turn, passes), even=even)

        def masked(name: str, counts: dict[str, int] = counts) -> torch.Tensor:
            tensor = read(name)
            if name not in counts:
                return tensor
            gone = lowest(prices.of(name).reshape(1, -1), torch.tensor([counts[name]]))
            return tensor.masked_fill(gone.reshape(tensor.shape), 0)

        found, mean = divergence_gradients_of(
            info,
            masked,
            tape.states[-1],
            tape.skeleton,
            tokens_NL,
            folder,
            names=names,
            dtype=dtype,
            progress=progress,
            check_cancelled=check_cancelled,
        )
        prices.add(found)
        divergences.append(mean)
        shutil.rmtree(folder)  # what it held is in the prices
    return prices, leaving, divergences


def _move(found: Mapping[str, LayerGradients], moved: Moved) -> None:
    """Gradients of the reference, in place, as they are by weights of the checkpoint's frame. Where a weight is f times
    as large for the same function, the gradient by it is f times smaller. f is a factor a row times one a column."""
    for name, of in found.items():
        factor_OI = moved(name, torch.ones(len(of.outputs_O), len(of.inputs_I))).square()
        if of.squares_OI is not None:
            of.squares_OI.div_(factor_OI.to(of.squares_OI.device))
        of.outputs_O.div_(factor_OI[:, 0])
        of.inputs_I.div_(factor_OI[0] / factor_OI[0, 0])


def counts_of(prices: Prices, sizes: Mapping[str, int], share: float, *, even: bool) -> dict[str, int]:
    """Module → how many of its weights go."""
    if even:
        return uniform_counts(sizes, share)
    return counts_by_price({name: histogram(prices.of(name)) for name in sizes}, sizes, share)
