"""Unstructured pruning with a look at activations: block by block, each block's inputs being those that the pruned
blocks before it give.

Within a block all layers are judged by the activations of the block as it was, as the published code of Wanda and
SparseGPT does. The next block sees the pruned one.

Written over our own walk for the reasons given in `quantize_gptq`; tests hold Wanda and SparseGPT to llm-compressor's
own functions on the same statistics.

Shapes: O output dimension, I input dimension.
"""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch

from app.recipes.notices import StepNotice
from app.recipes.prune import CalibratedSparse
from workers.surgery.allocation_owl import kept_of_layers, outlier_ratio, owl_shares, whole_counts
from workers.surgery.blockwise.observers import Channels, Observer
from workers.surgery.blockwise.walk import Block, Walk
from workers.surgery.prune_masks import Quota, count_to_prune, quota_of, quota_of_pattern
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of
from workers.surgery.width import width_of

Seen = TypeVar("Seen", bound=Observer)
Prepared = TypeVar("Prepared")


class CalibratedPruning(Generic[Seen, Prepared]):
    """What Wanda, RIA and SparseGPT share. A method says what it must see, what it makes of that once for all layers of
    the same input, and how it prunes one matrix."""

    version = 1
    # Whether weights that stay become others, and leave any grid that they are on.
    moves = False

    def __init__(self, step: CalibratedSparse, *, scope: str) -> None:
        self.step, self._scope = step, scope

    def observer(self, inputs: int) -> Seen:
        """What is gathered of a group's inputs."""
        raise NotImplementedError

    def prepare(self, seen: Seen, context: StepRun, name: str) -> Prepared:
        """What the layers of a group share; `name` is the first of them."""
        raise NotImplementedError

    def prune(self, weight_OI: torch.Tensor, prepared: Prepared, quota: Quota) -> torch.Tensor:
        """One float32 matrix, pruned."""
        raise NotImplementedError

    def run(self, context: StepRun) -> None:
        """Prunes `context.weights`."""
        addressed = [weight.name for weight in context.weights]
        quotas = self._quotas(context)
        last = max(weight.layer or 0 for weight in context.weights)
        for block, names in _blocks_with(walk_of(context), addressed, last):
            groups = [group for group in block.groups if names & set(group)]
            if groups:
                seen = {group: self.observer(block.inputs(group)) for group in groups}
                block.collect(seen)
                for group in groups:
                    prepared = self.prepare(seen.pop(group), context, group[0])
                    for name in (name for name in group if name in names):
                        context.check_cancelled()
                        weight_OI = context.read(name)
                        pruned_OI = self.prune(weight_OI.float(), prepared, quotas[name]).to(weight_OI.dtype)
                        linear = block.linears[name]
                        linear.weight.data = pruned_OI.to(linear.weight.dtype)
                        bits = width_of(pruned_OI) if self.moves else None
                        context.put(name, pruned_OI, bits=bits, sparsity=quotas[name].share)

    def _quotas(self, context: StepRun) -> dict[str, Quota]:
        if self.step.allocation == "uniform":
            return {
                one.name: quota_of(self.step, one.shape[0], one.shape[1], scope=self._scope) for one in context.weights
            }
        layers = sorted({weight.layer or 0 for weight in context.weights})
        elements = {name: shape[0] * shape[1] for name, shape in ((one.name, one.shape) for one in context.weights)}
        within = {layer: [one.name for one in context.weights if (one.layer or 0) == layer] for layer in layers}
        sizes = [sum(elements[name] for name in within[layer]) for layer in layers]
        ratios = self._outlier_ratios(context, layers[-1])
        shares = owl_shares([ratios[layer] for layer in layers], sizes, self.step.share, self.step.owl_reach)
        if self.step.pattern is not None:
            quotas = self._mixed(context, layers, shares, sizes)
        else:
            quotas = self._counted(
                {name: share for layer, share in zip(layers, shares, strict=True) for name in within[layer]}, elements
            )
        told = [quota.share for quota in quotas.values()]
        context.figures["owl_share_least"], context.figures["owl_share_most"] = min(told), max(told)
        return quotas

    def _counted(self, share_of: dict[str, float], elements: dict[str, int]) -> dict[str, Quota]:
        """Every matrix has its layer's share."""
        names = list(share_of)
        total = count_to_prune(self.step.share, sum(elements.values()))
        counts = whole_counts([share_of[name] for name in names], [elements[name] for name in names], total)
        return {
            name: Quota(count, by_row=self._scope == "row", share=share_of[name])
            for name, count in zip(names, counts, strict=True)
        }

    def _mixed(self, context: StepRun, layers: list[int], shares: list[float], sizes: list[int]) -> dict[str, Quota]:
        """Every matrix has its layer's N of the pattern's M."""
        kept, of = self.step.n_of_m()
        alike = len(set(sizes)) == 1
        keeps = kept_of_layers(shares, kept, of) if alike else [kept] * len(layers)
        kept_of = dict(zip(layers, keeps, strict=True))
        if set(keeps) == {kept}:
            uniform = StepNotice.OWL_ROUNDS_AWAY if alike else StepNotice.OWL_UNLIKE_LAYERS
            context.warn(uniform(kept=kept, of=of))
        return {
            one.name: quota_of_pattern(kept_of[one.layer or 0], of, one.shape[0], one.shape[1])
            for one in context.weights
        }

    def _outlier_ratios(self, context: StepRun, last: int) -> dict[int, float]:
        """Of each layer as the steps before left it."""
        ratios: dict[int, float] = {}
        addressed = [weight.name for weight in context.weights]
        for block, names in _blocks_with(walk_of(context, phase="outliers"), addressed, last):
            groups = [group for group in block.groups if names & set(group)]
            if not groups:
                continue
            seen = {group: Channels(block.inputs(group)) for group in groups}
            block.collect(seen)
            scores = []
            for group in groups:
                norm_I = seen[group].norm()
                scores += [context.read(name).float().abs() * norm_I for name in group if name in names]
            ratios[block.index] = outlier_ratio(scores, self.step.owl_threshold)
        return ratios


def _blocks_with(walk: Walk, addressed: Sequence[str], last: int) -> Iterator[tuple[Block, set[str]]]:
    """The blocks up to layer `last`, each with those of its layers that are addressed."""
    for block in walk.blocks():
        yield block, set(addressed) & set(block.linears)
        if block.index == last:
            return
