"""`prune.gradient`: gradient-aware pruning, from the gradients of the divergence to the pruned checkpoint.

1. Gradients of the divergence over `passes` (`gathering`), at the reference and at candidates of rising sparsity, give
   every weight a price in nats (`score`).
2. The budget: how many weights each module loses (`budget`); a pattern has the same share everywhere.
3. Block by block, on what the pruned blocks before give: a second-order sweep chooses the weights that go and lets
   the others take over (`sweep`). Then what stayed of the block is trained towards the reference's block
   (`kept`, `workers.mitigation.reconstruction`).
4. Where it was asked for, all that stayed is trained on the divergence itself (`recovery`).

What was taken from where is in each of these modules.
"""

from contextlib import ExitStack
from functools import cache
from typing import Any

import torch

from app.models.checkpoint import CheckpointInfo
from app.recipes.notices import StepNotice
from app.recipes.prune import PruneGradient
from workers.mitigation.gradient_pruning import recovery
from workers.mitigation.gradient_pruning.gathering import counts_of, gather
from workers.mitigation.gradient_pruning.kept import KeptWeights
from workers.mitigation.gradient_pruning.score import Importance, Prices, fisher_diagonal
from workers.mitigation.gradient_pruning.sweep import inverse_cholesky, sweep
from workers.mitigation.gradients import Tape
from workers.mitigation.reconstruction import metric_root, orders, pairs_of, reconstruct
from workers.mitigation.split import Split
from workers.surgery.alignment import layer_origins
from workers.surgery.blockwise.observers import SecondMoment
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.blockwise.walk import Block, Group, Walk
from workers.surgery.channels import Channels
from workers.surgery.reading import open_tensors
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of
from workers.surgery.width import width_of

DAMPING = 0.01
# Positions of one step of reconstruction, at least one window.
STEP_TOKENS = 1024
# Beyond so many bytes of activations of a step of recovery, blocks are run again instead of being remembered.
REMEMBERED = 4 << 30


class GradientPruning:
    """`prune.gradient`. `importance` is replaced where the bench leaves the gradients out."""

    version = 5
    importance: Importance = staticmethod(fisher_diagonal)

    def __init__(self, step: PruneGradient) -> None:
        self.step = step

    def run(self, context: StepRun) -> None:
        """Prunes `context.weights`. Raises ACTIVATIONS_NOT_FINITE, and what `Skeleton` raises."""
        with ExitStack() as stack:
            info, read = _teacher(context, stack)
            _Work(self.step, context, info, read, self.importance).run()


class _Work:
    """One pruning of one checkpoint."""

    def __init__(
        self, step: PruneGradient, context: StepRun, teacher: CheckpointInfo, read: Read, importance: Importance
    ) -> None:
        self._step, self._shop, self._tokens_NL = step, context, context.calibration.tokens_NL
        self._importance = importance
        self._dtype = torch.float32 if context.source.scheme == "f32" else torch.bfloat16
        self._sizes = {weight.name: weight.shape[0] * weight.shape[1] for weight in context.weights}
        self._last = max(weight.layer or 0 for weight in context.weights)
        self._frame = Channels.of(teacher)
        self._recovers = step.holds_model
        # All layers at once, where recovery is to train them together.
        self._pruned: dict[str, torch.Tensor] = {}
        self._tape = Tape(
            Skeleton(teacher, read, device=context.device, dtype=self._dtype),
            self._tokens_NL,
            context.scratch,
            name="reference",
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )

    def run(self) -> None:
        """All four parts."""
        step, context = self._step, self._shop
        tokens, widest = self._tokens_NL.numel(), max(weight.shape[-1] for weight in context.weights)
        if tokens < widest:
            context.warn(StepNotice.SINGULAR_MOMENT(tokens=tokens, inputs=widest))
        even = step.budget == "uniform" or step.pattern is not None
        prices, leaving, divergences = gather(
            self._tape,
            context.source,
            context.read,
            self._sizes,
            self._tokens_NL,
            context.scratch,
            share=step.share,
            passes=step.passes,
            even=even,
            seed=step.seed,
            dtype=self._dtype,
            importance=self._importance,
            moved=self._moved,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        counts = counts_of(prices, self._sizes, step.share, even=even)
        shares = [counts[name] / size for name, size in self._sizes.items()]
        context.figures["module_share_least"], context.figures["module_share_most"] = min(shares), max(shares)
        for turn, mean in enumerate(divergences, 1):
            context.figures[f"kl_at_pass_{turn}_nats"] = mean
        self._blocks(prices, counts, leaving)
        if self._recovers:
            self._recover()
            for name in self._sizes:
                self._put(name, self._pruned.pop(name), counts)

    def _moved(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """A weight of the teacher's, scaled as the source's is."""
        channels = self._shop.channels
        if self._frame.alike(name, channels):
            return weight_OI
        return channels.moved(name, self._frame.meaning(name, weight_OI))

    def _put(self, name: str, pruned_OI: torch.Tensor, counts: dict[str, int]) -> None:
        # trained weights leave any grid that a step before put them on
        moved = self._step.reconstruct or self._recovers
        bits = width_of(pruned_OI) if moved else None
        self._shop.check_cancelled()
        self._shop.put(name, pruned_OI, bits=bits, sparsity=counts[name] / self._sizes[name])

    def _blocks(self, prices: Prices, counts: dict[str, int], leaving: dict[int, torch.Tensor]) -> None:
        context = self._shop
        skeleton = Skeleton(context.source, context.read, device=context.device, dtype=self._dtype)
        walk = walk_of(context, skeleton, phase="prune")
        before, after, blocks = 0.0, 0.0, 0
        for block in walk.blocks():
            names = [name for name in block.linears if name in counts]
            if names:
                self._sweep(block, names, prices, counts)
                if self._step.reconstruct:
                    losses = self._reconstruct(block, walk, names, leaving[block.index].to(context.device))
                    epoch = len(losses) // self._step.reconstruct_epochs
                    before, after = before + sum(losses[:epoch]) / epoch, after + sum(losses[-epoch:]) / epoch
                    blocks += 1
                for name in names:
                    pruned_OI = block.linears[name].weight.detach().to(context.read(name).dtype).clone()
                    if self._recovers:
                        self._pruned[name] = pruned_OI
                    else:
                        self._put(name, pruned_OI, counts)
            if block.index == self._last:
                break
        if blocks:  # weighted squared error over the weighted square of what the block adds, first and last epoch
            context.figures["block_error_before"], context.figures["block_error_after"] = (
                before / blocks,
                after / blocks,
            )

    def _sweep(self, block: Block, names: list[str], prices: Prices, counts: dict[str, int]) -> None:
        groups: list[Group] = [group for group in block.groups if set(group) & set(names)]
        seen = {group: SecondMoment(block.inputs(group)) for group in groups}
        block.collect(seen)
        for group in groups:
            moment_II = seen.pop(group).mean()
            factor_II = inverse_cholesky(moment_II, DAMPING)
            power_I = moment_II.diagonal().clamp(min=float(moment_II.diagonal().mean()) * 1e-6)
            for name in (name for name in group if name in counts):
                self._shop.check_cancelled()
                swept_OI = sweep(
                    self._shop.read(name).to(torch.float32),
                    factor_II,
                    prices.fisher[name].to(power_I.device) / power_I,
                    count=counts[name],
                    pattern=self._step.n_of_m() if self._step.pattern else None,
                    update=self._step.reconstruct,
                    check_cancelled=self._shop.check_cancelled,
                )
                block.linears[name].weight.data = swept_OI.to(self._dtype)

    def _reconstruct(self, block: Block, walk: Walk, names: list[str], moment_DD: torch.Tensor) -> list[float]:
        tokens_NL, skeleton, wanted = self._tokens_NL, walk.skeleton, self._tape.states[block.index + 1]

        @cache
        def calls(windows: int) -> list[dict[str, Any]]:
            return skeleton.calls(tokens_NL[:windows])[1]

        def call(hidden_NLD: torch.Tensor) -> torch.Tensor:
            found: Any = block.module(hidden_NLD, **calls(len(hidden_NLD))[block.index])
            leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
            return leaving_NLD

        fetch = pairs_of(walk.entering, wanted)
        batch = max(1, STEP_TOKENS // tokens_NL.shape[1])
        seed = (self._step.seed * 1_000_003 + block.index) % 2**63
        # windows that decide over the recovery must be new to it and to what it begins from
        windows = len(Split.of(len(tokens_NL)).train) if self._recovers else len(tokens_NL)
        plan = list(orders(windows, batch, self._step.reconstruct_epochs, seed))
        kept = KeptWeights({name: block.linears[name] for name in names})
        return reconstruct(call, kept, fetch, metric_root(moment_DD), plan, check_cancelled=self._shop.check_cancelled)

    def _recover(self) -> None:
        step, context, tokens_NL = self._step, self._shop, self._tokens_NL

        def read(name: str) -> torch.Tensor:
            # a copy: layers are trained in place, and what was there may be what is kept
            return self._pruned[name].clone() if name in self._pruned else context.read(name)

        skeleton = Skeleton(context.source, read, device=context.device, dtype=self._dtype)
        for index in range(len(skeleton.layers)):
            skeleton.block(index)
        config: Any = skeleton.config
        wide = 8 * config.hidden_size + 4 * config.intermediate_size
        positions = max(tokens_NL.shape[1], recovery.STEP_TOKENS)
        work = recovery.Recovery(
            skeleton,
            frozenset(self._sizes),
            tokens_NL,
            self._tape.states[-1],
            self._tape.skeleton,
            seed=step.seed,
            rate=recovery.RATE,
            recompute=4 * wide * positions * len(skeleton.layers) > REMEMBERED,
        )
        before = work.measure(context.check_cancelled)
        found = work.run(
            seconds=step.recovery_s or None,
            steps=step.recovery_steps,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        after = work.measure(context.check_cancelled)
        work.kept.close()
        context.figures |= {
            "recovery_steps": len(found),
            "recovery_kl_before_nats": before,
            "recovery_kl_after_nats": min(before, after),
        }
        if not after < before:  # also where it is no number any more
            # words: the divergence after it may be no number
            nats = {"before": f"{before:.3f}", "after": f"{after:.3f}"}
            context.warn(StepNotice.NO_HELP_OF_RECOVERY(**nats, steps=len(found)))
            return
        for name, linear in work.kept.linears.items():
            self._pruned[name] = linear.weight.detach().to(context.read(name).dtype)


def _teacher(context: StepRun, stack: ExitStack) -> tuple[CheckpointInfo, Read]:
    """The reference, block for block, where it has the candidate's shape and its layers in their order; else the source
    as it is."""
    reference, source = context.reference, context.source
    alike = (
        reference.architecture == source.architecture
        and reference.quantization is None
        and {name: one.shape for name, one in reference.tensors.items()}
        == {name: one.shape for name, one in source.tensors.items()}
        and layer_origins(context) in (None, list(range(source.layers)))
    )
    if not alike:
        context.warn(StepNotice.OTHER_SHAPE())
        return source, context.read
    if reference.path == source.path:
        return source, context.read
    return reference, stack.enter_context(open_tensors(reference, context.device)).read
