"""The gaps between models of another depth, as parts of a report, each with its treatment.

A treatment is a recipe on the candidate's alias. The step that dropped the gap's layers drops them no more, or the one
that added them adds them no more; everything else stays as it was. There is one only if it is certain. One step of the
recipe numbers the layers again, and it dropped or added the layers of the gap. Without them it leaves exactly the
candidate's layers without the gap.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from app.contracts.errors import HemostatError
from app.contracts.report import Mean
from app.kinds.attribute.answer import layers_in_words
from app.kinds.attribute.blocks import LayerAlignment, LayerGap
from app.kinds.attribute.report import Cause, Site, Treatment
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, weights_of
from app.models.steps import after_one, check_recipe, order_one, renumbering
from app.models.steps.norm import norms_of
from app.models.steps.others import takes_other
from app.recipes.base import Step
from workers.diagnosis.attribute.cause import is_shown, without_damage
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.treatment import Untreated, waiting
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.measuring.subject import fields_of, recipe_of, reported_steps


def gap_sites(found: Found) -> tuple[Site, ...]:
    """The gaps of the alignment as parts, where the models differ in depth."""
    alignment = found.internals.alignment if found.internals is not None else None
    if alignment is None:
        return ()
    patient = found.patient()
    # logits that are not finite have no nats
    made = [_gap(gap, alignment, patient) for gap in alignment.gaps if gap.nats.mean is not None]
    return tuple(sorted(made, key=lambda site: (-site.nats, site.name)))


def gap_name(gap: LayerGap) -> str:
    """Its name as a part."""
    parts = [f"dropped {layers_in_words(gap.dropped)}"] if gap.dropped else []
    parts += [f"added {layers_in_words(gap.inserted)}"] if gap.inserted else []
    return ", ".join(parts)


def _gap(gap: LayerGap, alignment: LayerAlignment, patient: Untreated) -> Site:
    nats, share = gap.nats, Mean(mean=gap.share, ci=gap.share_ci)
    own: tuple[Cause, str] = ("removed" if gap.dropped else "inserted", "")
    cause, why = without_damage(nats, share) or own
    return Site(
        name=gap_name(gap),
        kind="gap",
        layer=gap.at_reference,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=share.mean,
        share_ci=share.ci,
        restored=gap.saved,
        shown=is_shown(nats),
        control=alignment.control,
        isotropic_ratio=None,
        cause=cause,
        unclear="no_damage_shown" if cause == "unclear" else None,
        why="; ".join(filter(None, (why, _found_again(gap.stability, alignment)))),
        treatment=_gap_treatment(
            nats, cause, alignment, put_back(patient, gap.dropped, gap.inserted, before=gap.at_candidate)
        ),
        tokens=alignment.measured.tokens,
    )


def _gap_treatment(nats: Mean, cause: Cause, alignment: LayerAlignment, found: Treatment) -> Treatment:
    """What fits a gap that is not negligible, where it is shown to cost anything or has no interval to tell."""
    if (nats.mean or 0.0) <= 0:
        return Treatment(recipe=None, why="nothing to treat: it costs nothing")
    if cause == "negligible":
        return Treatment(recipe=None, why="nothing to treat: what it costs is negligible")
    if cause == "unclear":
        return Treatment(recipe=None, why=waiting(alignment.measured.tokens, alignment.measured.documents))
    return found


def _found_again(stability: float | None, alignment: LayerAlignment) -> str:
    documents = alignment.measured.documents
    if stability is None:
        return f"not resampled, with {documents} document{'' if documents == 1 else 's'}"
    drawn = "documents" if documents >= FEWEST_CLUSTERS else "windows"
    return f"found again in {100 * stability:.0f} % of resamplings of the {drawn}"


Fields = dict[str, Any]
# Of each layer after a step the one that it was before; None for a new one.
Order = Sequence[int | None]


class _NoRecipeError(Exception):
    """Why there is no recipe."""


def put_back(patient: Untreated, dropped: Collection[int], added: Collection[int], *, before: int) -> Treatment:
    """`dropped`: layers of the reference, `added`: layers of the candidate, of one gap; it is before layer `before`
    of the candidate. Where there is no recipe `why` says why."""
    words = " and ".join(
        ([f"{layers_in_words(dropped)} left in"] if dropped else [])
        + ([f"added {layers_in_words(added)} left out"] if added else [])
    )
    try:
        steps = _without(patient, sorted(dropped), sorted(added), before)
    except _NoRecipeError as error:
        return Treatment(recipe=None, why=str(error))
    if not steps:
        return Treatment(recipe=None, why=f"with {words} nothing is done to the model")
    try:
        recipe = recipe_of(steps)
        check_recipe(patient.origin, recipe, pointer="", reference=patient.reference)
    except (HemostatError, ValidationError) as error:
        why = error.detail if isinstance(error, HemostatError) else "the steps cannot be written so"
        return Treatment(recipe=None, why=f"{words}: refused, {why}")
    return Treatment(recipe=reported_steps(recipe), why=words)


def _without(patient: Untreated, dropped: list[int], added: list[int], before: int) -> list[Fields]:
    """The steps without what made the gap. Raises _NoRecipeError."""
    done = "dropped" if dropped else "added"
    which = renumbering(patient.origin, patient.recipe)
    if len(which) != 1:
        raise _NoRecipeError(f"no single step of the recipe {done} these layers")
    if dropped and patient.origin.layers != patient.reference.layers:
        raise _NoRecipeError("the layers of the candidate's model have other numbers than the reference's")
    place = which[0]
    step, later = patient.recipe[place], patient.recipe[place + 1 :]
    info = patient.origin
    for one in patient.recipe[:place]:
        info = after_one(info, one)
    order = order_one(info, step)
    by_itself = order is None
    if order is None:
        # no other step moves a layer, so that the candidate's are those that this one left
        order = None if patient.made_of is None else list(patient.made_of)
    if order is None or len(order) != after_one(info, step).layers:
        raise _NoRecipeError("the step chose its layers by itself, and which is not known: name others")
    concerned = {*dropped, *(_old(order, layer) for layer in added)}
    if not concerned <= _acted_on(order, info.layers) or any(layer in order for layer in dropped):
        raise _NoRecipeError(f"the step {done} other layers")
    start = before - len(added)
    wanted: list[int | None] = [*order[:start], *dropped, *order[before:]]
    left = sorted(_acted_on(order, info.layers) - concerned)
    remaining = _remaining(step, left, by_itself=by_itself)
    if wanted != _order_after(info, remaining):
        way = "in" if dropped else "out"
        raise _NoRecipeError(f"{step.type} cannot leave exactly these layers {way}")
    places: list[int | None] = [*range(start), *[None] * len(dropped), *range(before, len(order))]
    renumbered = {layer: number for number, layer in enumerate(places) if layer is not None}
    outside = [weight for weight in (*weights_of(info), *norms_of(info)) if weight.layer is None]
    return [
        *(fields_of(one) for one in patient.recipe[:place]),
        *remaining,
        *(fields for one in later for fields in _moved(one, renumbered, outside)),
    ]


def _old(order: Order, layer: int) -> int:
    """The old layer that one is, or, of a new one, that it is behind; −1 for one before all."""
    return next((old for old in reversed(order[: layer + 1]) if old is not None), -1)


def _acted_on(order: Order, layers: int) -> set[int]:
    """The old layers that a step dropped, doubled, or put a new one behind."""
    counts = [order.count(layer) for layer in range(layers)]
    new = {_old(order, layer) for layer, old in enumerate(order) if old is None}
    return {layer for layer, count in enumerate(counts) if count != 1} | new


def _remaining(step: Step, layers: list[int], *, by_itself: bool) -> list[Fields]:
    """The step for these layers alone, none where there are none. One that chose layers by itself gets them, and
    reads no text for it."""
    if not layers:
        return []
    fields = fields_of(step)
    return [({"type": fields["type"]} if by_itself else fields) | {"layers": layers}]


def _order_after(info: CheckpointInfo, steps: list[Fields]) -> Order | None:
    """What the layers are after no step or one; None if that cannot be known, or the step not be written so."""
    if not steps:
        return list(range(info.layers))
    try:
        (step,) = recipe_of(steps)
        check_recipe(info, (step,), pointer="")
    except (HemostatError, ValidationError):
        return None
    return order_one(info, step)


def _moved(step: Step, renumbered: dict[int, int], outside: Sequence[Weight]) -> list[Fields]:
    """A later step for the same layers, by their numbers now; none if all of its layers are gone.

    Raises _NoRecipeError if it knows layers by more than their numbers in `layers`. The same if its layers are gone but
    not what it names `outside` of them: no step can name both no layer and the same modules."""
    by_number = any(part.isdecimal() for module in step.modules or () for part in module.split("."))
    if takes_other(step) or by_number:
        raise _NoRecipeError(f"{step.type} comes later and fits the layers as the candidate numbers them")
    fields = fields_of(step)
    if step.layers is None:
        return [fields]
    layers = [renumbered[layer] for layer in step.layers if layer in renumbered]
    if layers:
        return [fields | {"layers": layers}]
    if any(weight.answers_to(kind) for weight in outside for kind in step.modules or ()):
        raise _NoRecipeError(f"{step.type} comes later for these layers and for weights outside the layers")
    return []
