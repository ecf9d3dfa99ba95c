"""Trajectory reports made of synthetic values, for tests of what draws and checks reports. No model is behind them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.contracts.decoding import Sampler, defaults
from app.contracts.requests.trajectory import SHAPINGS
from app.contracts.trajectory_report import TrajectoryReport
from tests.support.calibration_reports import BLOCKS, mean
from tests.support.reports import compare_report, draw

Json = dict[str, Any]
RTN = {"type": "quantize.rtn", "bits": 4}
PRUNED = {"type": "prune.wanda", "sparsity": 0.5}
PROMPTS, MOST = 32, 128
IN_VLLM = ("greedy", "temperature", "top_p", "top_k", "min_p")


def survival(rate: float, prompts: int = PROMPTS, most: int = MOST) -> list[Json]:
    """A curve that falls by `rate` a token."""
    points = []
    for tokens in range(most + 1):
        same = round(prompts * float(np.exp(-rate * tokens)))
        share = same / prompts
        half = 0.17 * np.sqrt(max(0.05, share * (1 - share)) * 4)
        points.append({"tokens": tokens, "share": share, "ci": [max(0.0, share - half), min(1.0, share + half)]})
    return points


def text(length: float = 120.0, repeated: float = 0.2) -> Json:
    return {
        "length": mean(length, 3.0),
        "ended": mean(0.1, 0.08),
        "repetition": {str(n): mean(repeated / n, 0.05 / n) for n in (1, 2, 3, 4)},
        "distinct": mean(0.62, 0.04),
        "entropy": mean(1.9, 0.2),
        "surprise": mean(1.2, 0.1),
        "reference_surprise": mean(1.5, 0.1),
    }


def cell(decoder: str, candidate: int, *, damage: float, prompts: int = PROMPTS, most: int = MOST) -> Json:
    none = damage == 0
    rate = 0.2 * damage
    points = survival(rate, prompts, most)
    factor = 1.0 + 1.6 * damage + 0.3 * candidate
    median = next((point["tokens"] for point in points if point["share"] <= 0.5), None)
    kl = mean(0.0, 0.0) if none else mean(damage, 0.2 * damage)
    ratio = (
        {"value": None, "ci": None, "above_one": None}
        if none
        else {"value": factor, "ci": [factor * 0.7, factor * 1.4], "above_one": factor * 0.7 > 1}
    )
    bands = [
        {
            "first": first,
            "last": last,
            "kl_reference_text": kl,
            "kl_candidate_text": kl if none else mean(damage * (1 + number * 0.4), 0.2 * damage),
            "entropy_reference": mean(2.0, 0.2),
            "entropy_candidate": mean(1.8, 0.3),
            "disagreement": mean(0.0, 0.0) if none else mean(min(0.9, 0.2 + 0.2 * number), 0.05),
        }
        for number, (first, last) in enumerate([(1, 8), (9, 16), (17, 32), (33, 64), (65, 128)])
        if last <= most
    ]
    return {
        "decoder": decoder,
        "candidate": candidate,
        "prompts": prompts,
        "first_divergence": {
            "diverged": mean(0.0, 0.0) if none else {"mean": 0.94, "ci": [0.79, 0.99], "clusters": "documents"},
            "median": median,
            "median_ci": [None if median is None else max(1, median - 3), None if median is None else median + 6],
            "shared_prefix": mean(float(most) if none else 14.2, 0.0 if none else 3.1),
            "hazard": mean(0.0, 0.0) if none else mean(0.06, 0.02),
        },
        "survival": points,
        "edit_distance": [
            {"tokens": length, "distance": mean(0.0, 0.0) if none else mean(0.3 + length / 400, 0.05)}
            for length in (16, 32, 64, 128)
            if length <= most
        ],
        "kl_reference_text": kl,
        "kl_candidate_text": kl if none else mean(damage * factor, 0.3 * damage),
        "amplification": {
            "kl": ratio,
            "tokens": {"value": None, "ci": None, "above_one": None}
            if none
            else {"value": 5.1, "ci": [4.0, 6.9], "above_one": True},
            "one_step": mean(0.0 if none else 0.13, 0.0 if none else 0.02),
            "free": mean(0.0 if none else 0.66, 0.0 if none else 0.05),
            "conclusion": "no_damage" if none else "amplifies" if factor * 0.7 > 1 else "open",
        },
        "along": bands,
        "text": text(),
        "change": {
            "length": mean(-2.0, 3.0),
            "ended": mean(0.02, 0.04),
            "repetition": {str(n): mean(0.03 / n, 0.02) for n in (1, 2, 3, 4)},
            "distinct": mean(-0.02, 0.02),
            "entropy": mean(-0.1, 0.08),
            "reference_surprise": mean(0.31, 0.1),
        },
        "nonfinite_positions": 0,
    }


def trajectory_report(
    *,
    candidates: int = 1,
    stored: bool = True,
    damage: float = 0.3,
    few: bool = False,
    document: str = "",
) -> Json:
    """A report as JSON data, valid by its contract."""
    base = compare_report(draw(mean=max(damage, 1e-3), documents=48), store_text=stored)
    decoders = defaults()[:2] if few else defaults()
    recipes = [[RTN], [PRUNED], [{"type": "quantize.rtn", "bits": 3, "group_size": 32}], [RTN, PRUNED]][:candidates]
    models = [base["provenance"]["candidate"] | {"recipe": recipe} for recipe in recipes]
    shapings = () if few else SHAPINGS
    samples = [
        {
            "document": document or f"story-{number}",
            "domain": "prose",
            "decoder": "greedy",
            "candidate": 0,
            "prompt": "The river had been high all spring, and the\nbridge",
            "shared": " was closed to all but" if damage else " was closed.",
            "reference": " carts and foot traffic <b>until</b> June." if damage else "",
            "candidate_text": " the the the the\u202e the" if damage else "",
            "first_divergence": 6 if damage else None,
        }
        for number in range(3)
    ]
    report = {name: base[name] for name in BLOCKS} | {
        "schema": "hemostat.report/1",
        "kind": "trajectory",
        "job": base["job"],
        "severity": base["severity"],
        "verdict": "Decoding with greedy amplifies the damage: on its own text the candidate is 1.48 times (95 % "
        "interval 1.04 to 2.07) as far from the reference as on the reference's text (0.44 against 0.3 nats a token); "
        "half of the texts have parted by token 12. By single steps the damage is severe.",
        "decision": base["decision"],
        "tokens": base["tokens"],
        "documents": base["documents"],
        "windows": base["windows"],
        "noise_floor": base["noise_floor"],
        "prompts": PROMPTS,
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
            {"model": model, "severity": base["severity"], "excess_kl": mean(damage, 0.2 * damage)} for model in models
        ],
        "cells": [
            cell(one.name, index, damage=damage * (1 + 0.5 * index) * (0.6 + 0.1 * number))
            for number, one in enumerate(decoders)
            for index in range(candidates)
        ],
        "reference_texts": [{"decoder": one.name, "text": text(124.0, 0.15)} for one in decoders],
        "distances": [
            {
                "candidate": index,
                "shaping": shaping.name,
                "parameters": {key: value for key, value in shaping.model_dump(mode="json").items() if key != "name"},
                "kl": mean(0.2 * damage, 0.05 * damage),
                "infinite": mean(0.1, 0.02),
                "lost": mean(0.02, 0.004),
                "tv": mean(0.2 * damage, 0.04 * damage),
                "top1": mean(0.85, 0.02),
                "supports_differ": mean(0.4, 0.03),
            }
            for index in range(candidates)
            for shaping in shapings
        ],
        "definitions": {
            "kl": "KL on the candidate's own text over KL on the reference's text.",
            "tokens": "Different tokens over single-step disagreements.",
            "interval": "95 %, clustered by prompt.",
        },
        "samples": samples if stored else [],
        "generated_tokens": 2 * len(decoders) * PROMPTS * MOST,
        "resumed_texts": 0,
        "not_tested": base["not_tested"],
        "warnings": ["The text has 31 documents: 31 prompts instead of 32."] if few else [],
        "request": {
            "kind": "trajectory",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": recipes[0]},
            "candidates": [{"model": "smollm2-135m", "recipe": recipe} for recipe in recipes[1:]],
            "text": {"source": "shipped", "corpus": "evaluation", "documents": None},
            "decoders": [one.model_dump(mode="json") for one in decoders],
            "prompts": 32,
            "prompt_tokens": 32,
            "tokens": 128,
            "chat": False,
            "shapings": [one.model_dump(mode="json") for one in shapings],
            "store_text": None,
            "window": 512,
            "seed": 0,
        },
        "provenance": base["provenance"],
    }
    checked: Json = json.loads(TrajectoryReport.model_validate(report).model_dump_json())
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
