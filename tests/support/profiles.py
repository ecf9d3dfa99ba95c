"""Profiles to store, list and compare, of a small made-up model."""

from typing import Any

import torch

from app.contracts.profile import FitRecord, ProfileRecord
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.kinds import Chain
from workers.calibrators.lowrank import LowRank
from workers.calibrators.temperature import Temperature

WIDTH, VOCABULARY = 8, 32
__all__ = ["VOCABULARY", "WIDTH", "Chain", "ConfidenceTemperature", "LowRank", "Temperature", "fit_record", "record"]


def fit_record(**changes: Any) -> FitRecord:
    return FitRecord.model_validate(
        {
            "origin": "job",
            "reference": {"model": "m", "weights_fingerprint": "a" * 64},
            "candidate": {"model": "m", "weights_fingerprint": "b" * 64},
            "head": "c" * 64,
            "hidden_size": WIDTH,
            "vocabulary": VOCABULARY,
            "tokenizer_fingerprint": "d" * 64,
            "engine": "vllm 0",
            "dtype": "bfloat16",
            "window": 64,
            "seed": 0,
            "sets": [
                {"name": "fit", "documents": 9, "tokens": 900, "domains": {"prose": 900}, "fingerprint": "e" * 64},
                {"name": "test", "documents": 8, "tokens": 800, "domains": {"prose": 800}, "fingerprint": "f" * 64},
            ],
        }
        | changes
    )


def record(**changes: Any) -> ProfileRecord:
    own = {name: changes.pop(name) for name in tuple(changes) if name in ProfileRecord.model_fields}
    return ProfileRecord(fit=fit_record(**changes), **own)


def low_rank(seed: int = 0, rank: int = 2) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(WIDTH, rank, generator=generator),
        torch.randn(rank, WIDTH, generator=generator),
        torch.randn(WIDTH, generator=generator),
    )
