"""Trajectory reports made of drawn texts (`trajectory_draws`), for tests of what draws and checks reports."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np

from app.contracts.decoding import Sampler, defaults
from app.kinds.trajectory.notices import TrajectoryNotice
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import SHAPINGS
from app.kinds.trajectory.words import sentence
from tests.support.calibration_reports import BLOCKS
from tests.support.reports import Tokens, compare_report, draw
from tests.support.trajectory_draws import BLOCK, Draws

Json = dict[str, Any]
RTN = {"type": "quantize.rtn", "bits": 4}
PRUNED = {"type": "prune.wanda", "sparsity": 0.5}
PROMPTS, MOST = 32, 128
IN_VLLM = ("greedy", "temperature", "top_p", "top_k", "min_p")


def sample(candidate: int, number: int, parted: int | None, document: str) -> Json:
    """What was written after one prompt; where the first token differs nothing is shared."""
    same = parted is None
    return {
        "document": document,
        "domain": "prose",
        "decoder": "greedy",
        "candidate": candidate,
        "prompt": "The river had been high all spring, and the\nbridge",
        "shared": "" if parted == 1 else " was closed to all but" + " carts." * same,
        "reference": "" if same else " carts and foot traffic <b>until</b> June.",
        "candidate_text": "" if same else " the the the the\u202e the",
        "first_divergence": parted,
    }


def base_tokens(damage: float, prompts: int) -> Tokens:
    """A candidate on the reference's own texts: the same texts for every candidate, at most `MOST` tokens each."""
    drawn = draw(mean=max(damage, 1e-12), documents=prompts, tokens=MOST, seed=2)
    kept = drawn.position < MOST
    cut = {one.name: getattr(drawn, one.name)[kept] for one in fields(drawn) if one.name != "names"}
    values = replace(drawn, **cut)
    values.kl = values.kl * (damage / float(values.kl.mean()))
    if damage:
        return values
    same: dict[str, Any] = dict.fromkeys(("reverse_kl", "js", "tv", "delta_p"), np.zeros(values.kl.size))
    same |= dict.fromkeys(("top1", "overlap5", "overlap10", "rank"), np.ones(values.kl.size))
    return replace(values, logp_candidate=values.logp_reference, **same)


def trajectory_report(
    *,
    candidates: int = 1,
    stored: bool = True,
    damage: float = 0.3,
    few: bool = False,
    document: str = "",
) -> Json:
    """A report as JSON data, valid by its contract. Its first decoder's texts are what the common blocks speak of."""
    count = PROMPTS - 1 if few else PROMPTS
    fewer = TrajectoryNotice.FEWER_PROMPTS(documents=count, prompts=count, asked=PROMPTS)
    decoders = defaults()[:2] if few else defaults()
    recipes = [[RTN], [PRUNED], [{"type": "quantize.rtn", "bits": 3, "group_size": 32}], [RTN, PRUNED]][:candidates]
    damages = [damage * (1 + 0.5 * index) for index in range(candidates)]
    tokens = [base_tokens(one, count) for one in damages]
    reports = [compare_report(one, store_text=stored) for one in tokens]
    base = reports[0]
    models = [base["provenance"]["candidate"] | {"recipe": recipe} for recipe in recipes]
    draws = {
        (one.name, index): Draws(damage, count, MOST, (11 + number, index))
        for number, one in enumerate(decoders)
        for index, damage in enumerate(damages)
    }
    samples = [
        sample(index, number, 9 if damage else None, document or f"story-{number}")
        for index in range(candidates)
        for number in range(max(1, 3 // candidates))
    ]
    report = {name: base[name] for name in BLOCKS} | {
        "schema": "hemostat.report/1",
        "kind": "trajectory",
        "job": base["job"],
        "severity": base["severity"],
        "verdict": "",
        "decision": base["decision"],
        "tokens": base["tokens"],
        "documents": base["documents"],
        "windows": base["windows"],
        "noise_floor": base["noise_floor"],
        "prompts": count,
        "prompt_tokens": 32,
        "most_tokens": MOST,
        "chat_template": False,
        "decoders": [
            {
                "name": one.name,
                "parameters": {key: value for key, value in one.model_dump(mode="json").items() if key != "name"},
                "engine": "vllm" if one.name in IN_VLLM else "loop",
                "random": "common" if isinstance(one, Sampler) else "none",
            }
            for one in decoders
        ],
        "candidates": [
            {
                "model": model,
                "severity": one["severity"],
                "excess_kl": one["decision"]["excess_kl"],
                "blocks": {name: one[name] for name in BLOCKS},
            }
            for model, one in zip(models, reports, strict=True)
        ],
        "cells": [one.cell(*place) for place, one in draws.items()],
        "reference_texts": [{"decoder": one.name, "text": draws[one.name, 0].text()} for one in decoders],
        "distances": [
            draws["greedy", index].distance(shaping.model_dump(mode="json"), index)
            for index in range(candidates)
            for shaping in (() if few else SHAPINGS)
        ],
        "token_classes": BLOCK | {"by_candidate": [draws["greedy", index].by_class() for index in range(candidates)]},
        "samples": samples if stored else [],
        "generated_tokens": 110 * count * len(decoders) * (1 + candidates),
        "not_tested": base["not_tested"],
        "warnings": [fewer.model_dump(mode="json")] if few else [],
        "request": {
            "kind": "trajectory",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": recipes[0]},
            "candidates": [{"model": "smollm2-135m", "recipe": recipe} for recipe in recipes[1:]],
            "text": {"source": "shipped", "corpus": "evaluation", "documents": None},
            "decoders": [one.model_dump(mode="json") for one in decoders],
            "prompts": PROMPTS,
            "prompt_tokens": 32,
            "tokens": MOST,
            "chat": False,
            "shapings": [] if few else [one.model_dump(mode="json") for one in SHAPINGS],
            "store_text": None,
            "window": 512,
            "seed": 0,
        },
        "provenance": base["provenance"],
    }
    made = TrajectoryReport.model_validate(report)
    checked: Json = json.loads(made.model_copy(update={"verdict": sentence(made)}).model_dump_json())
    return checked


@cache
def trajectory_variants() -> dict[str, Json]:
    """One report for each situation that the page must be able to show. Made once: do not change them."""
    return {
        "one": trajectory_report(),
        "four": trajectory_report(candidates=4),
        "same": trajectory_report(damage=0.0),
        "no-text": trajectory_report(stored=False, few=True),
        "long": trajectory_report(document="a" * 190, candidates=2),
        "bare": trajectory_report(few=True) | {"request": None, "not_tested": [], "samples": []},
    }
