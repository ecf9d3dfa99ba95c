"""The step `repair.lowrank`: closed form, ranks by nats a byte, fit block by block, distillation, and what is kept.

The result is the modified checkpoint with the adapter merged, in its own dtype, so that it compares and deploys like
any other. Beside it is `adapter/`, the same numbers as a PEFT LoRA for the modified checkpoint itself, with the record
of the channels that are scaled there. Where the modification was made again (`iterations`), `base/` holds the weights
that the adapter goes on."""

import time
from collections.abc import Mapping, Sequence

import torch

from app.contracts.blocks import ADAPTER
from app.models.steps import check_one
from app.models.steps.repair import against
from app.recipes.notices import StepNotice
from app.recipes.repair import RepairLowrank
from workers.distributions.head import Head
from workers.mitigation.divergence import Divergence
from workers.mitigation.gradients import Gatherer, LayerGradients, Tape, gather_fisher
from workers.mitigation.importance import GRADIENT_TOKENS
from workers.mitigation.own_text import dealt, own_text
from workers.mitigation.repair.adapter import bits_of, export, merged
from workers.mitigation.repair.allocation import allocate, budget_of
from workers.mitigation.repair.blocks import Blocks
from workers.mitigation.repair.closed_form import WHOLE_MOMENTS, Factors
from workers.mitigation.repair.distill import Distiller, rate_at
from workers.mitigation.repair.survey import Again, Possible, Survey
from workers.surgery.alignment import align
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.channels import Channels
from workers.surgery.files import copy_companions
from workers.surgery.reading import open_tensors
from workers.surgery.safetensors_writer import Planned, plan_shards, write_shards
from workers.surgery.step_run import StepRun
from workers.surgery.steps import make_runner

BASE = "base"
# A module's rank is at most so many times the mean: the sizes that engines reserve are for the largest.
MOST = 4
# Share of the mean rank that every module gets.
_FLOOR = 0.25


class RepairStep:
    """`repair.lowrank`."""

    version = 10

    def __init__(self, step: RepairLowrank) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """See `WholeStep`. Raises RECIPE_NOT_APPLICABLE if the reference is of another kind than the model."""
        against(context.reference, context.source, self._step, f"/candidate/recipe/{context.index}")
        with open_tensors(context.reference, context.device) as reader:
            tokens_NL = self._text(context, context.calibration, reader.read)
            _warn_of_little_text(context, tokens_NL)
            pairs = align(context, reader.read)
            gatherer = self._gradients(context, tokens_NL)
            survey, possible = self._survey(context, tokens_NL, reader.read, pairs, gatherer.found)
            states = survey.reference.normed()
            factors = {name: possible[name].take(rank) for name, rank in self._ranks(possible).items() if rank}
            read = _replaced(context.read, survey.bases)
            fitted = self._fit_blocks(context, factors, read, reader.read, tokens_NL, pairs, gatherer.leaving)
            chosen, helped = self._choose(context, factors, fitted, read, tokens_NL, states, anew=bool(survey.bases))
        self._put(context, chosen, survey.bases if helped else {})

    def _text(self, context: StepRun, text: CalibrationText, read: Read) -> torch.Tensor:
        """The calibration text, and what the reference writes beside it where that was asked for."""
        if not self._step.own_windows:
            return text.tokens_NL
        began = time.monotonic()
        own_NL = own_text(
            Skeleton(context.reference, read, device=context.device),
            text.tokens_NL,
            self._step.own_windows,
            seed=self._step.seed,
            starts_V=text.ordinary_V,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        context.figures["own_text_s"] = round(time.monotonic() - began, 1)
        return dealt(text.tokens_NL, own_NL)

    def _gradients(self, context: StepRun, tokens_NL: torch.Tensor) -> Gatherer:
        """Gradients of the divergence at the modified model's layers and blocks; nothing where all count the same."""
        tokens_NL = tokens_NL[: gradient_windows(*tokens_NL.shape)]
        folder = context.scratch / "gradients"
        folder.mkdir()
        gatherer = Gatherer(
            frozenset(weight.name for weight in context.weights),
            tokens_NL.numel(),
            folder,
            squares=False,
            outputs_up_to=WHOLE_MOMENTS,
            blocks=bool(self._step.block_epochs),
            each=True,
        )
        if self._step.allocation == "nats":
            skeleton = Skeleton(context.source, context.read, device=context.device, dtype=torch.bfloat16)
            tape = Tape(
                skeleton,
                tokens_NL,
                folder,
                name="fisher",
                progress=context.progress,
                check_cancelled=context.check_cancelled,
            )
            gather_fisher(tape, gatherer, self._step.seed)
        return gatherer

    def _survey(
        self,
        context: StepRun,
        tokens_NL: torch.Tensor,
        read: Read,
        pairs: Sequence[int],
        gradients: Mapping[str, LayerGradients],
    ) -> tuple[Survey, dict[str, Possible]]:
        step, began = self._step, time.monotonic()
        names = frozenset(weight.name for weight in context.weights)
        frame = Channels.of(context.reference)
        survey = Survey(
            Skeleton(context.source, context.read, device=context.device),
            context.read,
            Skeleton(context.reference, read, device=context.device),
            lambda name: frame.meaning(name, read(name)),
            tokens_NL,
            context.scratch,
            pairs=pairs,
            names=names,
            rank=step.rank,
            most=MOST * step.rank if step.allocation == "nats" else step.rank,
            gradients=gradients,
            iterations=step.iterations,
            again=_again(context) if step.iterations > 1 else None,
            moved=context.channels.moved,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        possible = survey.run()
        context.figures["closed_form_s"] = round(time.monotonic() - began, 1)
        if pairs[0] > 0:
            context.warn(StepNotice.FIRST_LAYERS_MISSING(layers=pairs[0]))
        return survey, possible

    def _fit_blocks(
        self,
        context: StepRun,
        factors: dict[str, Factors],
        read: Read,
        read_reference: Read,
        tokens_NL: torch.Tensor,
        pairs: Sequence[int],
        leaving: Mapping[int, torch.Tensor],
    ) -> dict[str, Factors] | None:
        """The factors fitted block by block; None if that was not asked for."""
        if not self._step.block_epochs:
            return None
        began, folder = time.monotonic(), context.scratch / "blocks"
        folder.mkdir()
        blocks = Blocks(
            Skeleton(context.source, read, device=context.device),
            Skeleton(context.reference, read_reference, device=context.device),
            tokens_NL,
            folder,
            pairs=pairs,
            leaving=leaving,
            epochs=self._step.block_epochs,
            seed=self._step.seed,
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        fitted = blocks.run(factors)
        context.figures["blocks_s"] = round(time.monotonic() - began, 1)
        return fitted

    def _ranks(self, possible: Mapping[str, Possible]) -> dict[str, int]:
        """Of every module: the mean exactly where all are alike, else at most the same bytes."""
        shapes = {name: (one.factors.up_OR.shape[0], one.factors.down_RI.shape[1]) for name, one in possible.items()}
        costs = {name: sum(shape) for name, shape in shapes.items()}
        rank = self._step.rank
        if self._step.allocation == "uniform":
            return {name: min(rank, *shapes[name]) for name in shapes}
        return allocate(
            {name: one.factors.gains_R.tolist() for name, one in possible.items()},
            costs,
            {name: min(MOST * rank, *shapes[name]) for name in shapes},
            budget_of(costs, rank),
            floor=max(1, int(_FLOOR * rank)),
        )

    def _choose(
        self,
        context: StepRun,
        factors: dict[str, Factors],
        fitted: dict[str, Factors] | None,
        read: Read,
        tokens_NL: torch.Tensor,
        states: Activations,
        *,
        anew: bool,
    ) -> tuple[dict[str, Factors], bool]:
        """Of nothing, the closed form, the fitted blocks and the distilled adapter, the best on windows that were not
        trained on; and whether it is more than nothing. `anew`: what `read` gives is not the model as it came."""
        began = time.monotonic()
        reference = Head.load(context.reference.path, dtype=states.dtype).on(context.device)

        def with_adapter(read: Read, factors: Mapping[str, Factors]) -> Distiller:
            skeleton = Skeleton(context.source, read, device=context.device)
            return Distiller(
                skeleton,
                factors,
                tokens_NL,
                states,
                Divergence(reference, Head.load(context.source.path, dtype=skeleton.dtype).on(context.device)),
                progress=context.progress,
                check_cancelled=context.check_cancelled,
            )

        before = with_adapter(context.read, {}).measure() if anew else 0.0
        distiller = with_adapter(read, factors)
        nothing = {name: _emptied(one) for name, one in factors.items()}
        if not anew:
            distiller.put(nothing)
            before = distiller.measure()
            distiller.put(factors)
        closed = distiller.measure()
        results = [(before, 0, nothing), (closed, 1, factors)]
        if fitted is not None:
            distiller.put(fitted)
            context.figures["kl_blocks_nats"] = distiller.measure()
            results.append((context.figures["kl_blocks_nats"], 2, fitted))
        # nothing on weights that were modified again is not what was measured as nothing
        start, _, begin = min((one for one in results if one[1] or not anew), key=lambda result: result[:2])
        distiller.put(begin)
        steps = distiller.train(
            self._step.distill_steps,
            seed=self._step.seed,
            seconds=self._step.distill_s,
            rate=rate_at(start),
        )
        if steps:
            results.append((distiller.measure(), 3, distiller.factors()))
        least, which, chosen = min(results, key=lambda result: result[:2])
        context.figures |= {
            "kl_before_nats": before,
            "kl_closed_form_nats": closed,
            "kl_after_nats": least,
            "distill_steps": steps,
            "distill_s": round(time.monotonic() - began, 1),
        }
        if which == 0:
            context.warn(StepNotice.EMPTY_ADAPTER())
        elif which < 3 and steps:
            context.warn(StepNotice.NO_HELP_OF_DISTILLATION())
        if which == 1 and fitted is not None:
            context.warn(StepNotice.NO_HELP_OF_BLOCKS())
        return chosen, which > 0

    def _put(self, context: StepRun, chosen: Mapping[str, Factors], bases: Mapping[str, torch.Tensor]) -> None:
        numbers = 0
        used = {name: one for name, one in chosen.items() if bool(one.up_OR.any() and one.down_RI.any())}
        for weight in context.weights:
            context.check_cancelled()
            known = context.changes.get(weight.name)
            base_OI = bases.get(weight.name)
            if base_OI is None:
                base_OI = context.read(weight.name)
            width = 8.0 * base_OI.element_size()
            before = known.bits_per_weight if known else width
            one = used.get(weight.name)
            rank = one.rank if one is not None else 0
            numbers += rank * sum(weight.shape)
            merged_OI = base_OI if one is None else merged(base_OI, one)
            # A dense weight of full width takes the adapter in for nothing; one that is packed or sparse does not.
            free = before >= width and (known is None or known.nominal_sparsity is None)
            context.put(weight.name, merged_OI, bits=before if free else bits_of(weight.shape, rank, before))
        ranks = [one.rank if name in used else 0 for name, one in chosen.items()]
        context.figures |= {
            "adapter_mib": round(2 * numbers / 2**20, 3),
            "rank_least": float(min(ranks, default=0)),
            "rank_most": float(max(ranks, default=0)),
        }
        folder = context.beside(ADAPTER)
        # an adapter that is empty everywhere is one all the same
        export(folder, used or chosen, base=context.source.path.name if not bases else BASE)
        context.channels.save(folder)
        if bases:
            _write_base(context, bases)


def gradient_windows(windows: int, window: int) -> int:
    """How many windows, from the first on, gradients are gathered over: `GRADIENT_TOKENS`, and a quarter of a long
    text, at least one window. At rank 64 four times as many left 2 % less of the divergence."""
    return min(windows, max(1, GRADIENT_TOKENS // window, windows // 4))


def _warn_of_little_text(context: StepRun, tokens_NL: torch.Tensor) -> None:
    widest = max(weight.shape[-1] for weight in context.weights)
    if tokens_NL.numel() < widest:
        context.warn(StepNotice.INPUTS_NEVER_SHOWN(tokens=tokens_NL.numel(), inputs=widest))


def _emptied(factors: Factors) -> Factors:
    return Factors(torch.zeros_like(factors.up_OR), factors.down_RI, torch.zeros_like(factors.gains_R))


def _replaced(read: Read, bases: Mapping[str, torch.Tensor]) -> Read:
    def found(name: str) -> torch.Tensor:
        return bases[name] if name in bases else read(name)

    return found


def _again(context: StepRun) -> Again:
    """What the steps before did to a weight, from the weight alone."""
    done = []
    for index, step in enumerate(context.recipe[: context.index]):
        names = {weight.name for weight in check_one(context.base, step, pointer=f"/candidate/recipe/{index}")}
        done.append((names, make_runner(step)))

    def damaged(name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        for names, runner in done:
            if name in names:
                weight_OI = runner.apply(name, weight_OI)
        return weight_OI

    return damaged


def _write_base(context: StepRun, bases: Mapping[str, torch.Tensor]) -> None:
    """Tensor by tensor, in shards as the result's."""
    folder = context.beside(BASE)
    copy_companions(context.source.path, folder)
    tensors = context.source.tensors
    names = [name for name in tensors if not (context.source.tied and name == "lm_head.weight")]
    shards = plan_shards(Planned(name, tensors[name].dtype, tensors[name].shape) for name in names)
    read = _replaced(context.read, bases)
    write_shards(folder, shards, ((one.name, read(one.name)) for shard in shards for one in shard))
