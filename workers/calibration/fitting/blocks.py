"""Corrections of the residual stream after each block, fitted in closed form, one block after the other.

After block l of the candidate h is what the corrections of earlier blocks have left, and h_ref is the stream of the
reference at the same border. With x = h / rms(h) and y = (h_ref − h) / rms(h), the correction is the ridge regression
of y on x with a bias. It is cut to rank R in the metric of the inputs' covariance C = Cov x. Of the map M the
directions of outputs that carry the most of M C Mᵀ stay. Earlier errors are corrected before later ones are fitted:
fitted on the raw stream, each block would correct again what the ones before it have corrected.

Attention sinks are neither fitted nor corrected: a small relative change of such a row reaches every row that attends
to it. A row is taken for a sink if its rms is above `LIMIT` times the median. tests/bench/blocks.csv has the figures:
without a limit the corrections make the demo model worse.

An eighth of the documents takes no part in the regressions. The ridge that leaves the least squared error there is
taken. A block that no ridge helps there is left alone.

Both models are walked block by block: one block of each in memory, both streams in files of D numbers per position, in
the model's dtype. Sums are float32, what is solved from them float64.

Names: N windows, L tokens of a window, T positions of a batch, D hidden size, R rank.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

import torch

from app.contracts.blocks import RANK
from app.contracts.errors import ErrorCode, HemostatError
from workers.calibration.fitting.fit_text import FitText
from workers.calibration.fitting.refine import refined
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks, rms_of
from workers.distributions.head import Head, pair_on
from workers.engine.blocks import check_architecture
from workers.measuring.sides import Sides
from workers.mitigation.divergence import Divergence
from workers.surgery.blockwise.gram import add_upper, mirror
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.stream import Stream
from workers.surgery.callbacks import CheckCancelled, Log, Progress, never_cancelled, no_progress
from workers.surgery.dequantize import open_plain
from workers.text.windows import Corpus

# Rows above so many times the median rms are left alone.
LIMIT = 3.0
# Ridges that are tried, as shares of the inputs' mean variance.
RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


class Moments:
    """Weighted sums over positions of x, y, x xᵀ, y xᵀ and ‖y‖², float32. Rows above `limit` are left out."""

    def __init__(self, width: int, limit: float = NO_LIMIT) -> None:
        self.width, self.limit = width, limit
        self._weight = 0.0
        self._x_D, self._y_D = torch.zeros(width), torch.zeros(width)
        self._xx_DD, self._yx_DD = torch.zeros(width, width), torch.zeros(width, width)
        self._yy = 0.0

    def see(self, h_TD: torch.Tensor, wanted_TD: torch.Tensor, weight_T: torch.Tensor) -> None:
        """One batch of the candidate's stream and the reference's, both float32."""
        rms_T1 = rms_of(h_TD)
        kept_T = (weight_T > 0) & (rms_T1[:, 0] <= self.limit)
        weight_T = weight_T[kept_T]
        x_TD, y_TD = (h_TD / rms_T1)[kept_T], ((wanted_TD - h_TD) / rms_T1)[kept_T]
        weighed_TD = x_TD * weight_T[:, None]
        self._weight += float(weight_T.sum())
        self._x_D += weighed_TD.sum(0)
        self._y_D += weight_T @ y_TD
        add_upper(self._xx_DD, weighed_TD, x_TD)
        self._yx_DD.addmm_(y_TD.T, weighed_TD)
        self._yy += float(weight_T @ y_TD.square().sum(1))

    @property
    def empty(self) -> bool:
        """Whether no row was below the limit."""
        return self._weight == 0

    def add(self, other: Self) -> None:
        """What another one with the same limit has seen."""
        for name in ("_weight", "_x_D", "_y_D", "_xx_DD", "_yx_DD", "_yy"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def means(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """E x, E y, E x xᵀ, E y xᵀ and E ‖y‖², float64."""
        sums = (self._x_D, self._y_D, mirror(self._xx_DD), self._yx_DD)
        x_D, y_D, xx_DD, yx_DD = (one.to(torch.float64) / self._weight for one in sums)
        return x_D, y_D, xx_DD, yx_DD, self._yy / self._weight

    def error(self, correction: BlockCorrection | None) -> float:
        """E ‖y − M x − b‖² that a correction leaves, or none."""
        x_D, y_D, xx_DD, yx_DD, yy = self.means()
        if correction is None:
            return yy
        up_DR, bias_D = correction.up_DR.to(torch.float64), correction.bias_D.to(torch.float64)
        map_DD = up_DR @ correction.down_RD.to(torch.float64)
        quadratic = (map_DD * (map_DD @ xx_DD - 2 * yx_DD)).sum()
        return yy + float(quadratic + bias_D @ (bias_D + 2 * (map_DD @ x_D - y_D)))

    def regression(self, share: float, rank: int) -> BlockCorrection:
        """The ridge regression of y on x, cut to a rank; the ridge is a share of the mean variance of x."""
        rank = min(rank, self.width)
        x_D, y_D, xx_DD, yx_DD, _ = self.means()
        covariance_DD, cross_DD = xx_DD - torch.outer(x_D, x_D), yx_DD - torch.outer(y_D, x_D)
        ridge_DD = share * covariance_DD.diagonal().mean() * torch.eye(len(x_D), dtype=torch.float64)
        map_DD = torch.linalg.solve(covariance_DD + ridge_DD, cross_DD, left=False)
        up_DR = torch.linalg.eigh(map_DD @ covariance_DD @ map_DD.T)[1][:, len(x_D) - rank :]
        down_RD = up_DR.T @ map_DD
        bias_D = y_D - up_DR @ (down_RD @ x_D)
        down_RD, up_DR, bias_D = (one.float().contiguous() for one in (down_RD, up_DR, bias_D))
        return BlockCorrection(down_RD, up_DR, bias_D, torch.tensor(self.limit))


# From the moments of the fitted documents and of those that decide to a correction; None: the block is left alone.
Solve = Callable[[Moments, Moments], BlockCorrection | None]


def ridge(rank: int, ridges: Sequence[float] = RIDGES) -> Solve:
    """The solution of the head of this file."""

    def solve(fitted: Moments, held: Moments) -> BlockCorrection | None:
        if fitted.empty or held.empty:
            return None
        return min((None, *(fitted.regression(share, rank) for share in ridges)), key=held.error)

    return solve


class BlockFit:
    """One walk through both models over a text. `pairs`: the reference's layer of each of the candidate's (default: the
    same). `stream` is the candidate's, corrected as far as the fit has come, `reference` the reference's. `scratch`: a
    folder for the files of both.

    Raises what `FitText.parts` raises, and `HemostatError(INVALID_REQUEST)` if the models differ in width or, without
    `pairs`, in depth.
    """

    def __init__(
        self,
        reference: Skeleton,
        candidate: Skeleton,
        text: FitText,
        scratch: Path,
        *,
        pairs: Sequence[int] | None = None,
        solve: Solve | None = None,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        theirs = range(candidate.info.layers) if pairs is None else pairs
        _check_sizes(reference, candidate, depths=pairs is None)
        counted_N = text.counted()
        self._parts = [part_N[counted_N] for part_N in text.parts()]
        self._weight_NL = text.weight_NL[counted_N]
        self._borders = (*theirs[1:], reference.info.layers)
        self._solve, self._progress, self._check_cancelled = solve or ridge(RANK), progress, check_cancelled
        self._counted = counted_N.nonzero().flatten().tolist()
        self.reference = Stream(reference, text.tokens_NL[counted_N], scratch, check_cancelled=check_cancelled)
        self.stream = Stream(candidate, text.tokens_NL, scratch, phase="candidate", check_cancelled=check_cancelled)

    def run(self) -> Blocks:
        """The corrections. Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if a block's output is not finite."""
        info = self.stream.skeleton.info
        found: dict[int, BlockCorrection] = {}
        for layer, border in enumerate(self._borders):
            self._progress("blocks", layer, info.layers)
            self.stream.advance(layer + 1)
            self.reference.advance(border)
            correction = self._solve(*self._moments(info.hidden_size))
            if correction is not None:
                self.stream.change(partial(_corrected, correction))
                found[layer] = correction
        self._progress("blocks", info.layers, info.layers)
        return Blocks(found, layers=info.layers, hidden_size=info.hidden_size)

    def _moments(self, width: int) -> tuple[Moments, ...]:
        """Of the documents that are fitted, and of those that decide."""
        limit = LIMIT * self._median_rms()
        moments = tuple(Moments(width, limit) for _ in self._parts)
        for place, window in enumerate(self._counted):
            self._check_cancelled()
            h_TD = self.stream.states.read(window, window + 1)[0].float()
            wanted_TD = self.reference.states.read(place, place + 1)[0].float()
            for part_N, one in zip(self._parts, moments, strict=True):
                if part_N[place]:
                    one.see(h_TD, wanted_TD, self._weight_NL[place])
        return moments

    def _median_rms(self) -> float:
        """Of the candidate's stream, over the positions that count."""
        rms = [
            rms_of(self.stream.states.read(window, window + 1)[0].float())[self._weight_NL[place] > 0]
            for place, window in enumerate(self._counted)
        ]
        return float(torch.cat(rms).median())


def fit_blocks(
    sides: Sides,
    corpora: Sequence[Corpus],
    scratch: Path,
    *,
    device: str,
    refine_steps: int,
    progress: Progress,
    log: Log,
    check_cancelled: CheckCancelled,
) -> Blocks:
    """The corrections of a candidate, packed or not, by some texts; both models are walked in the engine's dtype.
    With `refine_steps` the whole candidate is in memory at the end.

    Raises what `BlockFit` raises, and CHECKPOINT_UNSUPPORTED for an architecture whose decoder layers are not known.
    """
    check_architecture(sides.candidate.info.architecture)
    with ExitStack() as stack:
        stack.enter_context(torch.device(device))  # the text, its moments and the corrections are made there
        reference, candidate = (
            Skeleton(plain, fused(plain, read), device=device, dtype=side.torch_dtype, mixtures=True)
            for side in (sides.reference, sides.candidate)
            for plain, read in (stack.enter_context(open_plain(side.info, device)),)
        )
        text = FitText.of(*corpora)
        fit = BlockFit(reference, candidate, text, scratch, progress=progress, check_cancelled=check_cancelled)
        found = fit.run()
        if refine_steps and found:
            states = fit.reference.normed()
            reference.release_embedding()
            theirs, ours = (Head.load(one.info.path, dtype=one.dtype) for one in (reference, candidate))
            found = refined(
                candidate,
                found,
                text,
                states,
                Divergence(*pair_on(theirs, ours, device)),
                steps=refine_steps,
                progress=progress,
                log=log,
                check_cancelled=check_cancelled,
            )
        return found.to(torch.device("cpu"))


def _corrected(correction: BlockCorrection, h_NLD: torch.Tensor) -> torch.Tensor:
    return correction(h_NLD.flatten(0, -2)).view_as(h_NLD)


def _check_sizes(reference: Skeleton, candidate: Skeleton, *, depths: bool) -> None:
    ours, theirs = candidate.info, reference.info
    if ours.hidden_size != theirs.hidden_size or (depths and ours.layers != theirs.layers):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"block corrections need models of the same shape: the candidate has {ours.layers} blocks of "
            f"{ours.hidden_size}, the reference {theirs.layers} of {theirs.hidden_size}",
            hint="calibrate a candidate that was made from this reference",
        )
