"""Weight matrices cut to a low rank, in one of three metrics.

Shapes: O output dimension, I input dimension, r rank, T tokens.

All three truncate the singular value decomposition of W·S and undo S afterwards; they differ in the metric S (I, I):

- *SVD*: S = 1. The best approximation of the weights (Eckart–Young).
- *ASVD* (Yuan et al. 2023, arXiv 2312.05821): S = diag(mean |x_i|^power): channels that carry more count more.
- *SVD-LLM* (Wang et al. 2024, arXiv 2403.07378): S = the Cholesky factor of E[x xᵀ]. Then ‖(W − W')S‖ is the root mean
  square error of the layer's output on the calibration text, and the truncation is the best there is for it.

Taken from the papers are the metrics. Ours are the sequential walk (each layer is cut for the inputs that the cut
layers before it give) and the damping of the Cholesky factor. ASVD's search for ranks by sensitivity and SVD-LLM's
update of the factors afterwards are not done: ranks are the same everywhere, and low-rank repair is a step of its own.

The result is served as the dense product of the two factors, on the kernels that any model runs on: vLLM's linear
layers have no factored form. So the file does not shrink; `bits_per_weight` shows what the factors would take, r(O + I)
numbers of 16 bits, and never more than the dense weight.
"""

from collections.abc import Callable, Iterable

import torch

from app.models.modules import Weight
from app.models.steps.lowrank import rank_of
from app.recipes.lowrank import LowrankAsvd, LowrankSvd, LowrankSvdllm, Truncated
from app.recipes.notices import StepNotice
from workers.surgery.blockwise.observers import Channels, Observer, SecondMoment
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of

FACTOR_BITS = 16
# Share of the mean of the diagonal that is added to a second moment before it is decomposed; ten times more where the
# text is too short for it to be positive definite.
DAMPING = 1e-4


def truncate(weight_OI: torch.Tensor, rank: int) -> torch.Tensor:
    """The nearest matrix of that rank in the Frobenius norm, float32.

    The projection on the leading eigenvectors of the smaller Gram matrix, which takes half as long as a decomposition
    into three factors; in float64, as its eigenvalues are squares.
    """
    weight_OI = weight_OI.to(torch.float64)
    outputs, inputs = weight_OI.shape
    if outputs <= inputs:
        lead_OR = torch.linalg.eigh(weight_OI @ weight_OI.T).eigenvectors[:, outputs - rank :]
        cut_OI: torch.Tensor = lead_OR @ (lead_OR.T @ weight_OI)
    else:
        lead_IR = torch.linalg.eigh(weight_OI.T @ weight_OI).eigenvectors[:, inputs - rank :]
        cut_OI = (weight_OI @ lead_IR) @ lead_IR.T
    return cut_OI.to(torch.float32)


def truncate_scaled(weight_OI: torch.Tensor, scale_I: torch.Tensor, rank: int) -> torch.Tensor:
    """The matrix of that rank that minimizes ‖(W − W') diag(scale)‖; scales are positive."""
    return truncate(weight_OI.to(torch.float32) * scale_I, rank) / scale_I


def truncate_whitened(weight_OI: torch.Tensor, moment_II: torch.Tensor, rank: int) -> torch.Tensor:
    """The matrix of that rank that minimizes E‖(W − W')x‖², where moment = E[x xᵀ] is positive definite."""
    lower_II = torch.linalg.cholesky(moment_II)
    cut_OI = truncate(weight_OI.to(torch.float32) @ lower_II, rank)
    whole_OI: torch.Tensor = torch.linalg.solve_triangular(lower_II, cut_OI, upper=False, left=False)
    return whole_OI


def damped(moment_II: torch.Tensor, damping: float = DAMPING) -> tuple[torch.Tensor, float]:
    """(E[x xᵀ] made positive definite by a share of its mean diagonal, the share that it took)."""
    mean = float(moment_II.diagonal().mean()) or 1.0
    while True:
        found_II = moment_II + damping * mean * torch.eye(len(moment_II))
        if int(torch.linalg.cholesky_ex(found_II).info) == 0:
            return found_II, damping
        damping *= 10


def factor_bits(shape: tuple[int, ...], rank: int, element_bits: int) -> float:
    """Bits per weight of two factors of 16-bit numbers; the dense weight's where that is less."""
    outputs, inputs = shape
    return min(float(element_bits), FACTOR_BITS * rank * (outputs + inputs) / (outputs * inputs))


class PlainSvd:
    """`lowrank.svd`."""

    version = 2

    def __init__(self, step: LowrankSvd) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every addressed weight, one at a time."""
        for done, weight in enumerate(context.weights):
            context.check_cancelled()
            context.progress("low rank", done, len(context.weights))
            weight_OI = context.read(weight.name)
            _put(context, self._step, weight, weight_OI, truncate(weight_OI, rank_of(self._step, weight.shape)))
        _tell(context, self._step)


class Asvd:
    """`lowrank.asvd`."""

    version = 2

    def __init__(self, step: LowrankAsvd) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Block by block."""

        def cut(weight_OI: torch.Tensor, seen: Observer, rank: int) -> torch.Tensor:
            assert isinstance(seen, Channels)  # noqa: S101 - made below
            mean_I = seen.absolute_I / max(1, seen.tokens)
            # a channel that is never used may be cut at will, but not divided by
            scale_I = mean_I.clamp_min(1e-6 * float(mean_I.max() or 1.0)) ** self._step.power
            return truncate_scaled(weight_OI, scale_I, rank)

        _walk(context, self._step, Channels, cut)


class SvdLlm:
    """`lowrank.svdllm`."""

    version = 2

    def __init__(self, step: LowrankSvdllm) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Block by block."""
        short: dict[int, float] = {}

        def cut(weight_OI: torch.Tensor, seen: Observer, rank: int) -> torch.Tensor:
            assert isinstance(seen, SecondMoment)  # noqa: S101 - made below
            moment_II, share = damped(seen.mean())
            if seen.tokens < len(moment_II) or share > DAMPING:
                short[len(moment_II)] = max(share, short.get(len(moment_II), 0.0))
            return truncate_whitened(weight_OI, moment_II, rank)

        _walk(context, self._step, SecondMoment, cut)
        for inputs, share in sorted(short.items()):
            context.warn(StepNotice.REGULARIZED_MOMENT(inputs=inputs, share=share))


def _walk(
    context: StepRun,
    step: Truncated,
    observer: Callable[[int], Observer],
    cut: Callable[[torch.Tensor, Observer, int], torch.Tensor],
) -> None:
    """Cuts each addressed weight for the inputs that the blocks before it, cut already, give it."""
    addressed = {weight.name: weight for weight in context.weights}
    walk = walk_of(context, phase="low rank")
    for block in walk.blocks():
        wanted = [group for group in block.groups if addressed.keys() & set(group)]
        seen = {group: observer(block.inputs(group)) for group in wanted}
        if seen:
            block.collect(seen)
        for group in wanted:
            for name in (name for name in group if name in addressed):
                context.check_cancelled()
                weight_OI = context.read(name)
                changed = cut(weight_OI, seen[group], rank_of(step, addressed[name].shape))
                kept = _put(context, step, addressed[name], weight_OI, changed)
                block.linears[name].weight.data = kept.to(walk.skeleton.dtype)
    _tell(context, step)


def _put(
    context: StepRun, step: Truncated, weight: Weight, weight_OI: torch.Tensor, changed_OI: torch.Tensor
) -> torch.Tensor:
    kept = changed_OI.to(weight_OI.dtype)
    rank = rank_of(step, weight.shape)
    context.put(weight.name, kept, bits=factor_bits(weight.shape, rank, weight_OI.element_size() * 8))
    return kept


def _tell(context: StepRun, step: Truncated) -> None:
    ranks = [rank_of(step, weight.shape) for weight in context.weights]
    context.figures["mean rank"] = sum(ranks) / len(ranks)
    context.warn(StepNotice.DENSE_PRODUCT())
    larger = _larger(context.weights, step)
    if larger:
        weights = len(context.weights)
        context.warn(StepNotice.FACTORS_TOO_LARGE(larger=len(larger), weights=weights, first=larger[0].name))


def _larger(weights: Iterable[Weight], step: Truncated) -> list[Weight]:
    return [
        weight
        for weight in weights
        if rank_of(step, weight.shape) * sum(weight.shape) > weight.shape[0] * weight.shape[1]
    ]
