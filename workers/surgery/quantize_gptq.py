"""GPTQ: columns are rounded one after the other, and each one's error is made good by the columns to come.

Frantar et al., *GPTQ* (arXiv 2210.17323), algorithm 1, after OBQ. With H = E[x xᵀ] of the layer's inputs and U the
upper Cholesky factor of (H + λI)⁻¹ (U' U = H⁻¹), column i is rounded. Its error e = (w_i − q_i) / U_ii is taken from
the columns after it: w_j −= e · U_ij. λ is `damping` times the mean of H's diagonal. From the authors' code: columns of
no input keep out of it, columns in order of their activations (`act_order`) with groups as they stand in the weight. A
group's grid is fitted when its first column's turn comes, to the weights as the errors before have made them (the
authors'). With `act_order` to the weights as they were.

Ours: a weight that is exactly 0 stays 0, and its error is made good like any other, so that pruning survives. Columns
of no input are rounded to nearest instead of set to 0, since other text may need them. Layers of one input (q, k, v;
gate, up) go through the columns together; a Hessian that cannot be factored is damped ten times as much.

It is written here over our own walk through the blocks, not driven through llm-compressor. One block of
activations is held whatever the model, and any checkpoint that steps before left is taken. Layers of one input share
one Hessian and one factor. A test shows that llm-compressor's `quantize_weight`, given the same Hessian and grid, gives
the same weights.

Shapes: O output dimension, I input dimension, G groups of a row, S weights of a group.
"""

from dataclasses import dataclass

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.recipes.notices import StepNotice
from app.recipes.quantize import QuantizeGptq
from workers.surgery.blockwise.observers import SecondMoment
from workers.surgery.blockwise.walk import Block, Group
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.packing import Packing
from workers.surgery.quantize_grid import Grid, Quantized, fit, scale_dtype
from workers.surgery.quantize_output import Output
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of

# Columns whose errors reach those behind them together, in one product.
BLOCK = 32


@dataclass(frozen=True)
class Factor:
    """`upper_II`: the Cholesky factor of the damped, inverted Hessian, its columns in `order_I`. `damping` as used."""

    upper_II: torch.Tensor
    order_I: torch.Tensor | None
    damping: float


def factor(hessian_II: torch.Tensor, *, damping: float, act_order: bool = False) -> Factor:
    """Of E[x xᵀ] (or any multiple of it). Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if it is not finite."""
    if not bool(torch.isfinite(hessian_II).all()):
        raise HemostatError(
            ErrorCode.ACTIVATIONS_NOT_FINITE,
            "the second moment of a layer's inputs is NaN or infinite on the calibration text",
            hint="the model overflows in its dtype on this text",
        )
    hessian_II = hessian_II.to(torch.float32).clone()
    diagonal_I = hessian_II.diagonal()
    dead_I = diagonal_I <= 0
    mean = float(diagonal_I[~dead_I].mean()) if not bool(dead_I.all()) else 1.0
    diagonal_I[dead_I] = mean
    order_I = None
    if act_order:
        order_I = torch.argsort(diagonal_I, descending=True, stable=True)
        hessian_II = hessian_II[order_I][:, order_I]
    used = damping
    while True:
        damped_II = hessian_II + torch.eye(len(hessian_II)) * (used * mean)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if not int(failed):
            inverse_II = torch.cholesky_inverse(lower_II)
            upper_II, failed = torch.linalg.cholesky_ex(inverse_II, upper=True)
            if not int(failed):
                return Factor(upper_II, order_I, used)
        used *= 10


def quantize(
    weight_OI: torch.Tensor,
    factor: Factor,
    *,
    bits: int,
    group_size: int | None,
    symmetric: bool,
    dtype: torch.dtype = torch.bfloat16,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Quantized:
    """The weight on a grid of `group_size` (None: a row); rows are independent of each other. `dtype`: the scales'."""
    outputs, inputs = weight_OI.shape
    size = group_size or inputs
    order_I = factor.order_I
    weight_IO = weight_OI.to(torch.float32).T.contiguous()
    if order_I is not None:
        weight_IO = weight_IO[order_I]
    kept_IO = weight_IO != 0
    masked = not bool(kept_IO.all())
    whole = fit(weight_OI, bits=bits, group_size=group_size, symmetric=symmetric, dtype=dtype)
    scale_GO = whole.scale_OG.T.contiguous()
    zero_GO = None if whole.zero_OG is None else whole.zero_OG.T.contiguous()
    column_group = torch.arange(inputs) // size if order_I is None else order_I // size
    groups = column_group.tolist()
    codes_IO = torch.empty(inputs, outputs, dtype=torch.int16)
    upper_II = factor.upper_II
    diagonal = upper_II.diagonal().tolist()
    for start, end in _pieces(inputs, size if order_I is None else inputs):
        check_cancelled()
        upper_BB = upper_II[start:end, start:end]
        error_BO = torch.empty(end - start, outputs)
        for column in range(start, end):
            group = groups[column]
            if order_I is None and column % size == 0:
                found = fit(
                    weight_IO[column : column + size].T, bits=bits, group_size=None, symmetric=symmetric, dtype=dtype
                )
                scale_GO[group] = found.scale_OG[:, 0]
                if zero_GO is not None and found.zero_OG is not None:
                    zero_GO[group] = found.zero_OG[:, 0]
            scale_O = scale_GO[group]
            weight_O = weight_IO[column]
            code_O = (weight_O / scale_O).round_()
            if zero_GO is None:
                code_O.clamp_(whole.least, whole.most)
                if masked:
                    code_O *= kept_IO[column]
                value_O = code_O * scale_O
            else:
                zero_O = zero_GO[group]
                code_O.add_(zero_O).clamp_(whole.least, whole.most)
                if masked:
                    code_O = torch.where(kept_IO[column], code_O, zero_O)
                value_O = (code_O - zero_O).mul_(scale_O)
            codes_IO[column] = code_O
            at = column - start
            torch.sub(weight_O, value_O, out=error_BO[at]).div_(diagonal[column])
            if column + 1 < end:
                weight_IO[column + 1 : end].addr_(upper_BB[at, at + 1 :], error_BO[at], alpha=-1)
        if end < inputs:
            weight_IO[end:].addmm_(upper_II[start:end, end:].T, error_BO, alpha=-1)
    if order_I is not None:
        codes_IO = codes_IO[torch.argsort(order_I)]
    grid = Grid(bits, group_size, scale_GO.T.contiguous(), None if zero_GO is None else zero_GO.T.contiguous())
    return Quantized(grid, codes_IO.T.contiguous())


def _pieces(inputs: int, size: int) -> list[tuple[int, int]]:
    """Runs of columns whose errors are spread at once. No run but of whole groups goes beyond the end of its group:
    what is fitted at the beginning of a group must have all errors before."""
    step = BLOCK if size >= BLOCK else size * (BLOCK // size)
    pieces = []
    for first in range(0, inputs, max(size, step)):
        last = min(inputs, first + max(size, step))
        pieces += [(start, min(last, start + step)) for start in range(first, last, step)]
    return pieces


class Gptq:
    """`quantize.gptq`."""

    version = 1

    def __init__(self, step: QuantizeGptq) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Block by block, each seeing what the changed blocks before give."""
        step, text = self._step, context.calibration
        packing = Packing(step.bits, step.group_size, step.symmetric) if step.form == "packed" else None
        output = Output(context, packing)
        walk = walk_of(context)
        wanted = {weight.name for weight in context.weights}
        damping = step.damping
        for block in walk.blocks():
            groups = [group for group in block.groups if wanted & set(group)]
            if not groups:
                continue
            moments = {group: SecondMoment(block.inputs(group)) for group in groups}
            block.collect(moments)
            for group in groups:
                context.check_cancelled()
                found = factor(moments.pop(group).mean(), damping=step.damping, act_order=step.act_order)
                damping = max(damping, found.damping)
                self._group(context, block, [name for name in group if name in wanted], found, output)
        output.finish()
        tokens, widest = text.tokens_NL.numel(), max(weight.shape[-1] for weight in context.weights)
        if tokens < widest:
            context.warn(StepNotice.SINGULAR_MOMENT(tokens=tokens, inputs=widest))
        if damping > step.damping:
            context.warn(StepNotice.MORE_DAMPING(asked=step.damping, damping=damping))

    def _group(self, context: StepRun, block: Block, names: Group | list[str], found: Factor, output: Output) -> None:
        """Layers of one input, their rows one below the other."""
        step = self._step
        weights = [context.read(name) for name in names]
        whole = quantize(
            torch.cat([weight.to(torch.float32) for weight in weights]),
            found,
            bits=step.bits,
            group_size=step.group_size,
            symmetric=step.symmetric,
            dtype=scale_dtype(context.source.tensors[names[0]].dtype),
            check_cancelled=context.check_cancelled,
        )
        first = 0
        for name, weight_OI in zip(names, weights, strict=True):
            rows = slice(first, first + len(weight_OI))
            zero_OG = whole.grid.zero_OG
            part = Grid(
                step.bits, step.group_size, whole.grid.scale_OG[rows], None if zero_OG is None else zero_OG[rows]
            )
            made_OI = output.put(name, Quantized(part, whole.codes_OI[rows]))
            linear = block.linears[name]
            linear.weight.data = made_OI.to(linear.weight.dtype)
            first += len(weight_OI)
