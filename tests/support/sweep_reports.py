"""Sweep reports over synthetic points, for tests of what draws and checks reports. No model is behind them; fits and
intervals are those of the code."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from app.contracts.report import KernelTerm
from app.contracts.request import Thresholds
from app.kinds.sweep.report import SweepPoint, SweepReport, Threshold
from app.kinds.sweep.request import FormBounds
from app.models.strength import Order
from tests.support.reports import compare_report
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.fits import threshold_of
from workers.diagnosis.sweep.limits import mild, near_lossless
from workers.diagnosis.sweep.report import verdict_of
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.points.kernels import DROPPED, Kernel
from workers.measuring.points.record import PointRecord, record_of

Json = dict[str, Any]
DOCUMENTS, TOKENS = 24, 60


def positions(documents: int = DOCUMENTS) -> Positions:
    """A window a document."""
    document = np.repeat(np.arange(documents), TOKENS)
    place = np.tile(np.arange(TOKENS), documents)
    return Positions(document, document, place, place + 1, np.zeros(document.size, dtype=np.int32))


def values(kl: float, loss: float, *, seed: int = 0, documents: int = DOCUMENTS, broken: int = 0) -> TokenValues:
    """Values with a mean KL and a mean loss beyond the reference's 3.2 nats, the same documents for every seed."""
    effect_D = np.exp(np.random.default_rng(7).normal(0, 0.3, documents))
    effect = np.repeat(effect_D / effect_D.mean(), TOKENS)
    rng = np.random.default_rng(seed)
    count = effect.size
    spread = rng.exponential(1.0, count)
    column = kl * effect * spread / (effect * spread).mean()
    reference = -3.2 * np.repeat(np.exp(np.random.default_rng(9).normal(0, 0.2, documents)), TOKENS)
    reference *= 3.2 / -reference.mean()
    shift = loss * effect + 0.05 * np.sqrt(max(loss, 1e-9)) * rng.normal(0, 1, count)
    shift += loss - shift.mean()
    finite = np.ones(count, dtype=np.bool_)
    finite[:broken] = False
    ones, zeros = np.ones(count, dtype=np.int32), np.zeros(count, dtype=np.int32)
    flat = np.full(count, 2.0)
    return TokenValues(
        kl=column,
        reverse_kl=column * 1.1,
        js=np.minimum(column / 8, 0.69),
        tv=np.minimum(np.sqrt(column / 2), 0.99),
        logp_reference=reference,
        logp_candidate=reference - shift,
        entropy_reference=flat,
        entropy_candidate=flat,
        top_probability_reference=np.full(count, 0.4),
        top1_agree=rng.random(count) > min(0.9, kl / 3),
        overlap5=ones.astype(np.int8),
        overlap10=ones.astype(np.int8),
        rank_of_reference_top=ones,
        rank_token_reference=ones,
        rank_token_candidate=ones,
        top_reference=zeros,
        top_candidate=zeros,
        finite=finite,
    )


def course(
    settings: Sequence[tuple[Any, float | None, float, float]],
    *,
    documents: int = DOCUMENTS,
    broken: int | None = None,
    refused: int | None = None,
    order: Order | None = None,
) -> Course:
    """Points of (value, s, mean KL, mean extra loss), weakest first or by the places of `order`; `broken` and `refused`
    are the places of one that is not finite somewhere, and of one that the model does not take."""
    where = positions(documents)
    points = []
    for place, (value, s, kl, loss) in enumerate(settings):
        found = values(kl, loss, seed=place, documents=documents, broken=7 if place == broken else 0)
        record = record_of(
            found,
            where,
            documents,
            floor=0.0,
            thresholds=Thresholds(),
            seed=0,
        ).model_copy(
            update={
                "bytes": 98_000_000 - place * 1_000_000,
                "bits_per_weight": 5.5,
                "weights_fingerprint": f"{place:x}" * 8,
                "seconds_making": 1.4,
                "seconds_measuring": 15.2,
                "by": f"node-{1 + place % 2}",
            }
        )
        if place == refused:
            record = PointRecord(
                refused="rank 600 is not below the smaller dimension of q_proj [576, 576]", by="node-1"
            )
        points.append(MeasuredPoint(place, value, s, record))
    if order is not None:
        points = [points[place] for place in order.places]
    made = Course(tuple(points), np.arange(documents), order)
    return made.by_damage()


def bending(count: int = 12, knee: float = 0.45) -> list[tuple[Any, float | None, float, float]]:
    """Sparsities whose loss follows the published form over the reference's 3.2 nats, KL with it."""
    found: list[tuple[Any, float | None, float, float]] = []
    for s in np.linspace(0.1, 0.8, count):
        beyond = max(0.0, float(s) - knee)
        loss = 0.09 + 0.02 * np.log(min(s, knee)) + 0.6 * beyond + 9.0 * beyond**2
        found.append((round(float(s), 4), round(float(s), 4), float(0.02 * s + 1.1 * loss * s), float(loss)))
    return found


def stepping() -> list[tuple[Any, float | None, float, float]]:
    """Sparsities whose loss makes one step at 0.3 and stays there, which the published form cannot follow."""
    shares = [round(float(s), 4) for s in np.linspace(0.05, 0.95, 12)]
    return [(s, s, 0.9 * loss + 0.001, loss) for s in shares for loss in (7 / (1 + math.exp(-60 * (s - 0.3))),)]


def five_bits() -> list[tuple[Any, float | None, float, float]]:
    """As many points as the published form has coefficients, and nothing left to test it by."""
    losses = ((8, 0.002), (6, 0.03), (5, 0.115), (4, 0.45), (3, 2.9))
    return [(bits, 1 - bits / 16, kl, 0.8 * kl) for bits, kl in losses]


def sweep_report(
    made: Course,
    *,
    field: str = "sparsity",
    step: Json | None = None,
    share: str | None = "s is the share of zeros",
    bounds: Json | None = None,
) -> Json:
    """A report of these points as JSON data, valid by its contract."""
    step = step or {"type": "prune.wanda", "sparsity": 0.1}
    values_ = [point.value for point in made.points]
    base = compare_report()
    fits = [
        _on_any_processor(threshold_of(made, of, FormBounds(**(bounds or {})), seed=0)) for of in ("perplexity", "kl")
    ]
    why = next((found for found in fits if isinstance(found, str)), "")
    strongest = next(point for point in reversed(made.points) if point.record.decision is not None)
    assert strongest.record.decision is not None
    swept = step | {field: {"sweep": values_}}
    body = {
        "job": base["job"],
        "severity": strongest.record.severity,
        "verdict": "",
        "decision": strongest.record.decision,
        "tokens": DOCUMENTS * TOKENS,
        "documents": DOCUMENTS,
        "windows": DOCUMENTS,
        "nonfinite_positions": strongest.record.nonfinite_positions,
        "noise_floor": base["noise_floor"],
        "knob": {
            "step": 0,
            "type": step["type"],
            "field": field,
            "values": values_,
            "share": share,
            "axis": made.axis_kind,
            "order": "given" if made.order is None else made.order.kind,
            "neutral": None if made.order is None else made.order.neutral,
        },
        "reference_perplexity": float(np.exp(3.2)),
        "points": [
            SweepPoint(
                value=point.value,
                s=point.s,
                kernel_term=point.kernel.term,
                no_kernel_term=point.kernel.missing,
                **{
                    name: getattr(point.record, name)
                    for name in SweepPoint.model_fields
                    if name in PointRecord.model_fields
                },
            )
            for point in made.points
        ],
        "threshold": fits[0] if isinstance(fits[0], Threshold) else None,
        "threshold_kl": fits[1] if isinstance(fits[1], Threshold) else None,
        "no_threshold": why,
        "near_lossless": near_lossless(made, seed=0),
        "largest_mild": mild(made, Thresholds()),
        "not_tested": base["not_tested"],
        "warnings": [],
        "request": {
            "kind": "sweep",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [step]},
            "knobs": [{"step": 0, "field": field, "values": values_}],
            "text": {"source": "shipped", "corpus": "evaluation", "documents": None},
            "window": 512,
            "seed": 0,
        },
        "provenance": base["provenance"]
        | {"candidate": base["provenance"]["candidate"] | {"recipe": [swept], "bits_per_weight": None, "bytes": None}},
    }
    report = SweepReport.model_validate(body)
    checked: Json = json.loads(report.model_copy(update={"verdict": verdict_of(report)}).model_dump_json())
    return checked


def _on_any_processor(fit: Threshold | str) -> Threshold | str:
    """The fit. Interval ends that its points do not identify differ between processors: fixed ones replace them."""
    if isinstance(fit, str) or fit.identifiable:
        return fit
    return fit.model_copy(update={"ci": (fit.s0 - 0.03, fit.s0 + 0.03)})


def packed(made: Course) -> Course:
    """The same points as packed ones: the kernel term of each a twentieth of its KL, that of the last not known."""
    points = []
    for point in made.points[:-1]:
        assert point.record.divergence is not None
        block = json.loads(point.record.divergence.kl.model_dump_json())
        kl = {key: value / 20 if isinstance(value, float) else value for key, value in block.items()}
        kl["ci"] = [end / 20 for end in block["ci"]]
        term = KernelTerm.model_validate({"kl": kl, "tokens": 480, "scheme": f"w{point.value}a16"})
        points.append(replace(point, kernel=Kernel(term)))
    return replace(made, points=(*points, replace(made.points[-1], kernel=Kernel(missing=DROPPED))))


def null_everywhere() -> Json:
    """A report of which every setting is mild and null, the whole row, the strongest."""
    made = course(
        [(32, None, 0.001, 0.001), (128, None, 0.002, 0.002), (None, None, 0.004, 0.003)],
        order=Order("rising", (0, 1, 2)),
    )
    step = {"type": "quantize.rtn", "bits": 8, "group_size": 32}
    return sweep_report(made, field="group_size", step=step, share=None)


def null_mildest() -> Json:
    """A report of which null, no limit, alone is mild."""
    made = course([(None, None, 0.001, 0.001), (100, None, 0.9, 0.9)], order=Order("falling", (0, 1)))
    step = {"type": "prune.wanda", "sparsity": 0.5, "recovery_steps": 100}
    return sweep_report(made, field="recovery_steps", step=step, share=None)


def beside_neutral(kl: float) -> Json:
    """A report of factors around 1, which changes nothing, with this KL on either side of it."""
    settings = [(0.5, None, kl, kl), (1.0, None, 0.001, 0.001), (2.0, None, kl, kl)]
    order = Order("around", (1, 0, 2), 1.0)
    step = {"type": "norm.scale", "factor": 0.5}
    return sweep_report(course(settings, order=order), field="factor", step=step, share=None)


@cache
def sweep_variants() -> dict[str, Json]:
    """One report for each situation that the page must be able to show. Made once: do not change them."""
    bits = [
        (b, 1 - b / 16, kl, 0.8 * kl) for b, kl in ((8, 0.002), (7, 0.005), (6, 0.02), (5, 0.07), (4, 0.3), (3, 1.6))
    ]
    bits += [(2, 1 - 2 / 16, 6.5, 5.2)]
    factor = [(f, None, kl, 0.7 * kl) for f, kl in ((1.01, 0.001), (1.1, 0.03), (1.5, 0.4), (3, 4.0))]
    # Harmless at 1; the lower side hurts sooner.
    temperature = [(0.5, None, 0.9, 0.6), (0.8, None, 0.12, 0.08), (1.0, None, 0.001, 0.001)]
    temperature += [(1.25, None, 0.015, 0.01), (1.5, None, 0.03, 0.02), (2.0, None, 0.2, 0.14)]
    damping = [(0.001, None, 0.2, 0.15), (0.01, None, 0.01, 0.008), (0.1, None, 0.02, 0.015), (1.0, None, 0.4, 0.3)]
    straight = [(round(s, 2), round(s, 2), 0.3 * s**1.4, 0.2 * np.log(s) + 0.7) for s in np.linspace(0.1, 0.9, 9)]
    return {
        "knee": sweep_report(course(bending())),
        "bits": sweep_report(
            course(bits), field="bits", step={"type": "quantize.rtn", "bits": 8}, share="s is 1 − bits/16"
        ),
        "packed": sweep_report(
            packed(course(bits[0:5:2])),
            field="bits",
            step={"type": "quantize.rtn", "bits": 8, "symmetric": True, "form": "packed"},
            share="s is 1 − bits/16",
        ),
        "straight": sweep_report(course(straight)),
        "factor": sweep_report(course(factor), field="factor", step={"type": "norm.scale", "factor": 1.01}, share=None),
        "around": sweep_report(
            course(temperature, order=Order("around", (2, 1, 3, 4, 0, 5), 1.0)),
            field="temperature",
            step={"type": "moe.router", "temperature": 0.5},
            share=None,
        ),
        "unordered": sweep_report(
            course(damping, order=Order("unknown", (0, 1, 2, 3))),
            field="damping",
            step={"type": "quantize.gptq", "bits": 4, "damping": 0.001},
            share=None,
        ),
        "broken": sweep_report(course(bending(9), broken=8, refused=4)),
        "few": sweep_report(course(bending(3))),
        "single": sweep_report(course(bending(2), documents=1)),
    }
