"""`quantize.dynamic` from beginning to end.

In each block channels are smoothed, then the layers are rounded in the order in which they run, each on what
the rounded blocks before give it. With x' its input there, (W − Ŵ) H (W − Ŵ)ᵀ is made small, H = E[w x' x'ᵀ]. Where a
layer has a bias, the mean that is left goes into it: the source is walked beside for that. A block whose layers are
rounded is then fitted as a whole (`fitting`), unless `block_epochs` is 0.

Moving W first to the least-squares answer to ‖W x − Ŵ x'‖², x the source's input (asymmetric calibration, GPTAQ, arXiv
2504.02692), was tried and left out. On 16,384 tokens it follows the text: the divergence is a tenth more on text of
the same kind and a quarter more on other text.

w is what a token counts (`workers.mitigation.importance`). Where all count alike, the few tokens of which everything
hangs are lost in the sum. At SmolLM2's q, k and v that made the layers' error four times smaller than rounding to
nearest does, and the divergence greater.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import repeat

import torch

from app.models.steps.dynamic import chooses
from app.recipes.notices import StepNotice
from app.recipes.quantize import QuantizeDynamic
from workers.mitigation.dynamic_scaling.activations import rounding_inputs
from workers.mitigation.dynamic_scaling.block_error import BlockError, BlockErrors
from workers.mitigation.dynamic_scaling.budget import Choice
from workers.mitigation.dynamic_scaling.fitting import Fitting
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.learned import Learned, LearnedBlock
from workers.mitigation.dynamic_scaling.moments import SAMPLE_TOKENS, Moment, sample, see_inputs
from workers.mitigation.dynamic_scaling.plan import plan_bits
from workers.mitigation.dynamic_scaling.result import Result
from workers.mitigation.dynamic_scaling.rounding import Rounded, round_weight
from workers.mitigation.dynamic_scaling.smoothing import smooth_block
from workers.mitigation.gradients import Gatherer, Tape, gather_fisher
from workers.mitigation.importance import GRADIENT_TOKENS, importance
from workers.mitigation.reconstruction import metric_root
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations, Block, Group, Walk
from workers.surgery.quantize_folding import Folded
from workers.surgery.quantize_gptq import factor
from workers.surgery.quantize_grid import scale_dtype
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of

# Share of the mean of a second moment's diagonal that is added to it.
DAMPING = 0.03
# Tokens on which what smoothing brings is measured, at least one window.
ERROR_TOKENS = 1024


class DynamicScaling:
    """The whole step."""

    version = 8

    def __init__(self, step: QuantizeDynamic) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Smooths, plans bits, rounds and fits block by block, and stores the result."""
        step, text = self._step, context.calibration
        names = frozenset(weight.name for weight in context.weights)
        dtype = scale_dtype(context.source.tensors[context.weights[0].name].dtype)
        scheme = Scheme(int(step.bits), step.group_size, step.symmetric, dtype)
        gradients = self._gradients(context, names)
        planned = plan_bits(context, step, scheme, gradients.found) if chooses(step) else {}
        if step.mixed and not planned:
            context.warn(StepNotice.LEAST_BITS(bits=step.bits))
        work = _Work(context, step, scheme, names, gradients, planned)
        tokens, widest = text.tokens_NL.numel(), max(weight.shape[-1] for weight in context.weights)
        if tokens < widest:
            context.warn(StepNotice.SINGULAR_MOMENT(tokens=tokens, inputs=widest))
        Result(context, step).put(work.walk())

    def _gradients(self, context: StepRun, names: frozenset[str]) -> Gatherer:
        """The source's Fisher information at outputs of layers and blocks."""
        tokens_NL = context.calibration.tokens_NL
        folder = context.scratch / "fisher"
        folder.mkdir()
        skeleton = Skeleton(context.source, context.read, device=context.device, dtype=torch.bfloat16)
        tape = Tape(
            skeleton,
            tokens_NL[: max(1, GRADIENT_TOKENS // tokens_NL.shape[1])],
            folder,
            name="fisher",
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        found = Gatherer(names, tape.positions, context.scratch, squares=False, blocks=True, each=True)
        gather_fisher(tape, found, self._step.seed)
        shutil.rmtree(folder)  # what entered each block
        return found


class _Work:
    """One run of the step."""

    def __init__(
        self,
        context: StepRun,
        step: QuantizeDynamic,
        scheme: Scheme,
        names: frozenset[str],
        gradients: Gatherer,
        planned: Mapping[str, Choice],
    ) -> None:
        self._shop, self._step, self._scheme, self._names = context, step, scheme, names
        self._gradients, self._planned = gradients, planned
        self._tokens_NL = context.calibration.tokens_NL
        self._strengths: list[float] = []
        self._block_errors: BlockErrors | None = None
        self._kept: dict[str, torch.Tensor] = {}
        self._damping = DAMPING
        self._errors: list[tuple[float, float]] = []

    def walk(self) -> Iterator[LearnedBlock]:
        """Smooths and rounds every block; what was made of each, when its turn has come."""
        context = self._shop
        self._skeleton = Skeleton(context.source, context.read, device=context.device)
        own = walk_of(context, self._skeleton, phase="rounding")
        fitting = self._fitting()
        with ExitStack() as hooks:
            for source_block, own_block in zip(self._source(), own.blocks(), strict=False):
                made = self._block(source_block, own_block, own.entering, hooks)
                if fitting is not None and made.weights:
                    made = self._fit(fitting, own_block, own.entering, made)
                yield made
                del made
        if self._strengths:
            context.figures["smoothing_strength_mean"] = sum(self._strengths) / len(self._strengths)
        if self._errors:
            befores = [before for before, _ in self._errors]
            kept = [min(pair) for pair in self._errors]
            context.figures["blocks_fitted"] = sum(after < before for before, after in self._errors)
            context.figures["block_error_before"] = sum(befores) / len(befores)
            context.figures["block_error_after"] = sum(kept) / len(kept)
        if self._damping > DAMPING:
            context.warn(StepNotice.MORE_DAMPING(asked=DAMPING, damping=self._damping))

    def _source(self) -> Iterator[Block | None]:
        """The source's blocks where some layer has a bias, else nothing without end."""
        context = self._shop
        biases = {f"{name.removesuffix('.weight')}.bias" for name in self._names}
        if not biases & set(context.source.tensors):
            return repeat(None)
        return Walk(
            Skeleton(context.source, context.read, device=context.device),
            self._tokens_NL,
            context.scratch,
            phase="source",
        ).blocks()

    def _block(self, source: Block | None, own: Block, entering: Activations, hooks: ExitStack) -> LearnedBlock:
        context, step = self._shop, self._step
        groups = tuple(group for group in own.groups if self._names & set(group))
        folded = Folded(context, own)
        divided: dict[Group, torch.Tensor] = {}
        whole = tuple(group for group in groups if set(group) <= self._names)
        if whole:
            seen = sample(own, whole, SAMPLE_TOKENS)
            with self._error_of(own.index, entering) as error:
                divided, strengths = smooth_block(
                    own, folded, context.source.architecture, seen, self._of, step.activation_bits, error, self._names
                )
            self._strengths += strengths
            folded.close({})
        # After smoothing, which looks at inputs as they are; until the walk ends, since what enters the next block has
        # gone through rounded inputs too.
        linears = [linear for name, linear in own.linears.items() if name in self._names]
        hooks.enter_context(rounding_inputs(linears, step.activation_bits))
        rounded: dict[str, Rounded] = {}
        for together in (groups[:2], groups[2:]):  # attention, then feed-forward: two passes
            moments = {
                name: Moment(own.inputs(group), divided.get(group), self._importance(name))
                for group in together
                for name in group
                if name in self._names
            }
            if moments:
                see_inputs(own, moments, source)
            for name in tuple(moments):
                context.check_cancelled()
                rounded[name] = self._round(own, folded, name, moments.pop(name))
        return self._learned(own, rounded)

    def _error_of(self, index: int, entering: Activations) -> AbstractContextManager[BlockError]:
        """What changes of a block cost at its output, by the first windows of the text."""
        gradients, length = self._gradients, self._tokens_NL.shape[1]
        first_NL = self._tokens_NL[: max(1, ERROR_TOKENS // length)]
        if self._block_errors is None:
            skeleton = Skeleton(self._shop.source, self._shop.read, device=self._shop.device, dtype=torch.float32)
            self._block_errors = BlockErrors(skeleton, first_NL, self._shop.check_cancelled)
        weight_T = importance(gradients.leaving_each[index], self._tokens_NL.numel())[: first_NL.numel()]
        return self._block_errors.block(
            index,
            entering.read(0, len(first_NL)),
            metric_root(gradients.leaving[index].to(self._shop.device)),
            weight_T.reshape(first_NL.shape),
        )

    def _of(self, group: Group) -> Scheme:
        first = next(name for name in group if name in self._names)
        planned = self._planned.get(first)
        if planned is None:
            return self._scheme
        return replace(self._scheme, bits=planned.bits)

    def _importance(self, name: str) -> torch.Tensor | None:
        found = self._gradients.found.get(name)
        if found is None or found.positions_NL is None:
            return None
        return importance(found.positions_NL, self._tokens_NL.numel())

    def _round(self, own: Block, folded: Folded, name: str, moment: Moment) -> Rounded:
        """Rounds one layer, and gives the running block the result."""
        whole_OI = folded.weight(name)
        keep_OI = whole_OI != 0
        scheme, power_I = self._of(own.group_of(name)), moment.own_II.diagonal()
        found = factor(moment.own_II, damping=DAMPING, act_order=True)
        self._damping = max(self._damping, found.damping)
        made = round_weight(
            whole_OI,
            found.upper_II,
            scheme,
            keep_OI,
            self._shop.check_cancelled,
            order_I=found.order_I,
            power_I=power_I,
        )
        new_OI = made.weight()
        linear = own.linears[name]
        linear.weight.data = new_OI.to(linear.weight.dtype).contiguous()
        if linear.bias is not None:
            shift_O = whole_OI @ (moment.shift_I + moment.mean_I) - new_OI @ moment.mean_I
            linear.bias.data = (linear.bias.data.to(torch.float32) + shift_O).to(linear.bias.dtype)
        self._kept[name] = keep_OI
        return made

    def _fitting(self) -> Fitting | None:
        context, step = self._shop, self._step
        if not step.block_epochs:
            return None
        return Fitting(
            self._skeleton,
            Skeleton(context.source, context.read, device=context.device),
            self._tokens_NL,
            context.scratch,
            self._gradients.leaving,
            epochs=step.block_epochs,
            seed=step.seed,
            check_cancelled=context.check_cancelled,
        )

    def _fit(self, fitting: Fitting, own: Block, entering: Activations, made: LearnedBlock) -> LearnedBlock:
        """Fits a block, and gives the running one the result; one that it does not help keeps what it has."""
        trained = made.settled(trained=True)
        before, after = fitting.fit(own.index, entering, trained)
        self._errors.append((before, after))
        if not after < before:
            return made
        fitted = trained.settled(trained=False)
        with torch.no_grad():
            for path, tensor in fitted.parameters(self._skeleton.dtype).items():
                own.module.get_parameter(path).data = tensor.contiguous()
        return fitted

    def _learned(self, own: Block, rounded: dict[str, Rounded]) -> LearnedBlock:
        """A block whose layers are rounded, in its parameters as they are now."""
        weights, vectors, fixed = {}, {}, {}
        for path, parameter in own.module.named_parameters():
            name = own.prefix + path
            if name in rounded:
                weights[path] = Learned(rounded[name], self._kept.pop(name), trained=False)
            elif parameter.ndim == 1 and self._follows(name, rounded):
                vectors[path] = parameter.data.clone()
            else:
                fixed[path] = parameter.data.clone()
        return LearnedBlock(weights, vectors, fixed)

    @staticmethod
    def _follows(name: str, rounded: dict[str, Rounded]) -> bool:
        """Whether a norm's weight or a bias is fitted: in layers that the step addresses, biases of what it rounds."""
        return f"{name.removesuffix('.bias')}.weight" in rounded if name.endswith(".bias") else bool(rounded)
