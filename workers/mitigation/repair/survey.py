"""What a repair could add to each linear layer, found block by block. These are the error's best directions, or those
of a regression if the reference has what the modified model lacks.

*Error*: W − Ŵ where both models have the layer in one shape; W is scaled as the modified model's channels are.
*Regression*: after a block that dropped layers follow, or in which heads or channels are missing. What is missing from
the hidden state there, ĥ → h, is regressed on the inputs of the block's last linear layer. The product of thin matrices
is the reduced-rank solution (Izenman 1975), in the metric of the divergence. That a dropped layer can be folded into
the projection before it is from ReplaceMe (arXiv 2505.02819), there as a square matrix. *Neither* (nothing is wrong
with the layer itself): directions of the inputs with the most power, to be trained from zero (EVA, arXiv 2410.07170).

Blocks are done in turn, each with the repair of uniform rank in those before it, so that later ones see the inputs that
they will have.

Names: N windows, L tokens of a window, D hidden size, O outputs, I inputs, R rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from workers.mitigation.gradients import LayerGradients
from workers.mitigation.importance import importance
from workers.mitigation.repair.closed_form import Factors, Metric, root_of, solve
from workers.mitigation.repair.moments import MomentsOfLayers
from workers.mitigation.repair.rounds import rounds
from workers.surgery.blockwise.observers import SecondMoment
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.blockwise.stream import Stream
from workers.surgery.blockwise.walk import Block, Walk
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# takes the tensor's name and a weight, gives it modified as the steps before did
Again = Callable[[str, torch.Tensor], torch.Tensor]
# takes the modified model's name of a weight of the reference and the weight, gives it scaled as that model's is
Moved = Callable[[str, torch.Tensor], torch.Tensor]
# Of the mean input power: a regression on few tokens must not follow each of them.
_REGRESSION_RIDGE = 1e-2


@dataclass(frozen=True)
class Possible:
    """For one linear layer: what can be added, best first, and input directions to train from zero."""

    factors: Factors
    spare_RI: torch.Tensor

    def take(self, rank: int) -> Factors:
        """`rank` directions: the found ones, then spare ones with nothing in them yet."""
        found = self.factors.first(rank)
        missing = min(rank - found.rank, len(self.spare_RI))
        if missing <= 0:
            return found
        outputs = found.up_OR.shape[0]
        return Factors(
            torch.cat([found.up_OR, torch.zeros(outputs, missing)], dim=1),
            torch.cat([found.down_RI, self.spare_RI[:missing]]),
            torch.cat([found.gains_R, torch.zeros(missing)]),
        )


class Survey:
    """One walk through both models.

    `pairs`: the reference's layer of each of the modified model's; `names`: weights that may get an adapter;
    `gradients`: E[δ δᵀ] of their outputs or its diagonal, and ‖δ‖² of the text's first positions, by which tokens count
    (default: all alike). `moved`: what takes the reference's weights, as `read_reference` gives them, to the modified
    model's frame (default: it is the same). With `iterations` above 1, `again` modifies a weight of the
    reference again (`workers.mitigation.repair.rounds`). `bases` then has the weights that the products go on, where
    that left less than the modification that was there. Raises what `Walk` raises.
    """

    def __init__(
        self,
        wounded: Skeleton,
        read: Read,
        reference: Skeleton,
        read_reference: Read,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        pairs: Sequence[int],
        names: frozenset[str],
        rank: int,
        most: int,
        gradients: Mapping[str, LayerGradients] | None = None,
        iterations: int = 1,
        again: Again | None = None,
        moved: Moved = lambda _, weight_OI: weight_OI,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self._wounded, self._read = wounded, read
        self._reference_info, self._read_reference = reference.info, read_reference
        self._iterations, self._again, self._moved = iterations, again, moved
        self.bases: dict[str, torch.Tensor] = {}
        self._tokens_NL, self._scratch = tokens_NL, scratch
        self._pairs, self._names, self._rank, self._most = tuple(pairs), names, rank, most
        self._gradients = gradients or {}
        self._progress, self._check_cancelled = progress, check_cancelled
        self.reference = Stream(reference, tokens_NL, scratch, progress=progress, check_cancelled=check_cancelled)
        self.regressed: list[str] = []

    def run(self) -> dict[str, Possible]:
        """By tensor name."""
        found: dict[str, Possible] = {}
        walk = Walk(
            self._wounded,
            self._tokens_NL,
            self._scratch,
            phase="repair",
            progress=self._progress,
            check_cancelled=self._check_cancelled,
        )
        for block in walk.blocks():
            found |= self._block(block)
        return found

    def _block(self, block: Block) -> dict[str, Possible]:
        moments = {
            group: MomentsOfLayers(block.inputs(group), {name: self._importance(name) for name in group})
            for group in block.groups
        }
        block.collect(moments)
        found: dict[str, Possible] = {}
        missing = self._gap(block.index)
        for name, linear in block.linears.items():
            if name not in self._names:
                continue
            self._check_cancelled()
            moment_II = moments[block.group_of(name)].mean(name)
            error_OI = self._error(name, block)
            missing = missing or error_OI is None
            metric = None
            if error_OI is not None and bool(error_OI.any()):
                metric = Metric.of(moment_II, self._outputs(name), linear.out_features)
                if self._again is not None:
                    error_OI = self._damage_again(name, block, error_OI, metric, self._again)
            found[name] = self._possible(error_OI, moment_II, linear.out_features, metric)
            self._add(linear, found[name].factors.first(self._rank))
        last = block.groups[-1][-1]
        if missing and last in self._names:
            found[last] = self._regress(block, last, found[last].factors)
            self.regressed.append(last)
        return found

    def _importance(self, name: str) -> torch.Tensor | None:
        found = self._gradients.get(name)
        if found is None or found.positions_NL is None or name not in self._names:
            return None
        return importance(found.positions_NL, self._tokens_NL.numel())

    def _outputs(self, name: str) -> torch.Tensor | None:
        found = self._gradients.get(name)
        if found is None:
            return None
        return found.outputs_O if found.outputs_OO is None else found.outputs_OO.to(found.outputs_O.device)

    def _possible(
        self, error_OI: torch.Tensor | None, moment_II: torch.Tensor, outputs: int, metric: Metric | None
    ) -> Possible:
        inputs = len(moment_II)
        if error_OI is None or metric is None:
            nothing = Factors(torch.zeros(outputs, 0), torch.zeros(0, inputs), torch.zeros(0))
            return Possible(nothing, _powerful(moment_II, min(self._most, outputs, inputs)))
        factors = metric.solve(error_OI, most=self._most)
        short = min(self._most, outputs, inputs) - factors.rank
        return Possible(factors, _powerful(moment_II, short))

    def _gap(self, index: int) -> bool:
        """Whether layers of the reference are missing after a block."""
        following = self._pairs[index + 1] if index + 1 < len(self._pairs) else self._reference_info.layers
        return following > self._pairs[index] + 1

    def _theirs(self, name: str, block: Block) -> str:
        """The reference's name for a weight of a block."""
        return f"model.layers.{self._pairs[block.index]}.{name.removeprefix(block.prefix)}"

    def _error(self, name: str, block: Block) -> torch.Tensor | None:
        """W − Ŵ; None if the reference has no such weight of that shape."""
        theirs = self._theirs(name, block)
        tensor = self._reference_info.tensors.get(theirs)
        if tensor is None or tensor.shape != tuple(block.linears[name].weight.shape):
            return None
        return self._moved(name, self._read_reference(theirs)).float() - self._read(name).float()

    def _damage_again(
        self, name: str, block: Block, error_OI: torch.Tensor, metric: Metric, again: Again
    ) -> torch.Tensor:
        """The error after the rounds; the weight that it is of goes to `bases` and into the block."""
        stored_OI = self._read_reference(self._theirs(name, block))
        best = rounds(
            self._moved(name, stored_OI).float(),
            error_OI,
            metric,
            lambda rest_OI: again(name, rest_OI.to(stored_OI.dtype)),
            rank=self._rank,
            count=self._iterations - 1,
            check_cancelled=self._check_cancelled,
        )
        if best.base_OI is None:
            return error_OI
        self.bases[name] = best.base_OI
        block.linears[name].weight.data = best.base_OI.to(self._wounded.dtype)
        return best.error_OI

    @torch.no_grad()
    def _regress(self, block: Block, name: str, already: Factors) -> Possible:
        following = self._pairs[block.index + 1] if block.index + 1 < len(self._pairs) else self._reference_info.layers
        self.reference.advance(following)
        linear = block.linears[name]
        moment = SecondMoment(linear.in_features)
        cross_OI = torch.zeros(linear.out_features, linear.in_features)
        seen: list[torch.Tensor] = []
        handle = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
        try:
            for start, _, leaving_NLD in block.outputs():
                x_TI = seen.pop().float()
                moment.see(x_TI)
                theirs_NLD = self.reference.states.read(start, start + len(leaving_NLD))
                lacking_TO = (theirs_NLD.float() - leaving_NLD.float()).flatten(0, 1)
                cross_OI.addmm_(lacking_TO.T, x_TI)
        finally:
            handle.remove()
        moment_II = moment.mean()
        root_II = root_of(moment_II, ridge=_REGRESSION_RIDGE)
        slope_OI = torch.cholesky_solve((cross_OI / moment.tokens).to(torch.float64).T, root_II).T
        total_OI = slope_OI + already.first(self._rank).product()
        factors = solve(total_OI, moment_II, self._outputs(name), most=self._most)
        linear.weight.data = self.bases.get(name, self._read(name)).to(self._wounded.dtype)
        self._add(linear, factors.first(self._rank))
        return Possible(factors, _powerful(moment_II, min(self._most, *total_OI.shape) - factors.rank))

    @staticmethod
    def _add(linear: torch.nn.Linear, factors: Factors) -> None:
        weight = linear.weight.data
        linear.weight.data = (weight.float() + factors.product()).to(weight.dtype)


def _powerful(moment_II: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` directions of most power (R, I), scaled so that what they see has power 1, but no longer than 1."""
    if count <= 0:
        return torch.zeros(0, len(moment_II))
    values, vectors = torch.linalg.eigh(moment_II.to(torch.float64))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    scale = values.clamp_min(1e-30).rsqrt().clamp_max(1.0)
    found_RI: torch.Tensor = (vectors * scale).T.float().contiguous()
    return found_RI
