"""Trajectory reports made of drawn texts (`trajectory_draws`), for tests of what draws and checks reports."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.contracts.decoding import AnyShaping, Sampler, defaults
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import SHAPINGS
from app.kinds.trajectory.words import sentence
from tests.support.calibration_reports import BLOCKS
from tests.support.reports import Tokens, _mean, compare_report
from tests.support.trajectory_draws import base_tokens, cell_of, text_of, write
from tests.support.trajectory_kinds import BLOCK, by_class_of, distances_of, reference_masks

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


def distance(shaping: AnyShaping, index: int, tokens: Tokens) -> Json:
    """A cut loses what the candidate no longer holds; temperature cuts nothing. No cut moves the most likely token."""
    cuts = shaping.name != "temperature"
    lost = np.where(tokens.tv > 0.3, 0.05, 0.0) * cuts
    columns = {
        "kl": np.where(lost > 0, np.nan, 0.7 * tokens.kl),
        "infinite": (lost > 0).astype(np.float64),
        "tv": 0.9 * tokens.tv,
        "top1": np.asarray(tokens.top1, dtype=np.float64),
    }
    return {
        "candidate": index,
        "shaping": shaping.name,
        "parameters": {key: value for key, value in shaping.model_dump(mode="json").items() if key != "name"},
        "kl": _mean(0.7 * tokens.kl[lost == 0], tokens.document[lost == 0]),
        "infinite": _mean((lost > 0).astype(np.float64), tokens.document),
        "lost": _mean(lost, tokens.document),
        "tv": _mean(0.9 * tokens.tv, tokens.document),
        "top1": _mean(tokens.top1, tokens.document),
        "supports_differ": _mean(((tokens.tv > 0.2) & cuts).astype(np.float64), tokens.document),
        "by_class": distances_of(
            columns, tokens.document, reference_masks("greedy", np.bincount(tokens.document).tolist())
        ),
    }


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
    decoders = defaults()[:2] if few else defaults()
    recipes = [[RTN], [PRUNED], [{"type": "quantize.rtn", "bits": 3, "group_size": 32}], [RTN, PRUNED]][:candidates]
    damages = [damage * (1 + 0.5 * index) for index in range(candidates)]
    tokens = [base_tokens(one, count, MOST) for one in damages]
    reports = [compare_report(one, store_text=stored) for one in tokens]
    base = reports[0]
    models = [base["provenance"]["candidate"] | {"recipe": recipe} for recipe in recipes]
    written = {
        (number, index): write(
            tokens[index],
            damages[index],
            MOST,
            scale=1.0 + 0.1 * number,
            seed=(11 + number, index),
            greedy=number == 0,
        )
        for number in range(len(decoders))
        for index in range(candidates)
    }
    cells = [
        cell_of(decoders[number].name, index, one) | {"by_class": by_class_of(decoders[number].name, index, one)}
        for (number, index), one in written.items()
    ]
    samples = [
        sample(index, number, written[0, index].first[number], document or f"story-{number}")
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
        "cells": cells,
        "reference_texts": [
            {"decoder": one.name, "text": text_of(written[number, 0], 0)} for number, one in enumerate(decoders)
        ],
        "distances": [
            distance(shaping, index, one) for index, one in enumerate(tokens) for shaping in (() if few else SHAPINGS)
        ],
        "token_classes": BLOCK,
        "samples": samples if stored else [],
        "generated_tokens": sum(
            len(text)
            for (_, index), one in written.items()
            for side in ((0, 1) if index == 0 else (1,))
            for text in one.kl[side]
        ),
        "resumed_texts": 0,
        "not_tested": base["not_tested"],
        "warnings": [f"The text has {count} documents: {count} prompts instead of {PROMPTS}."] if few else [],
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
