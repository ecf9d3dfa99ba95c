"""The whole chain against transformers in float32, which shares nothing with it but the checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.cli.client import Client
from app.settings import Settings
from tests.e2e.conftest import compare_request
from workers.text.shipped import shipped_documents

Json = dict[str, Any]


def _logp(folder: Path, texts: list[torch.Tensor]) -> list[torch.Tensor]:
    """ln p of every next token after each position but the last, float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return [torch.log_softmax(model(ids[None]).logits[0, :-1], dim=-1) for ids in texts]


def test_kl_and_perplexities_are_those_of_transformers_in_float32(
    finish: Callable[[Json], Json], client: Client, settings: Settings, smollm2: Path
) -> None:
    documents = [
        {"id": document.id, "domain": document.domain, "text": document.text}
        for document in shipped_documents("evaluation")
        if document.text is not None
    ][::9]
    job = finish(
        compare_request()
        | {
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
            "text": {"source": "inline", "documents": documents},
            "window": 512,
        }
    )
    assert job["status"] == "succeeded", job["error"]
    report = client.report(job["id"])
    fingerprint = report["provenance"]["candidate"]["weights_fingerprint"]
    manifests = (settings.home / "checkpoints").glob("*/manifest.json")
    (modified,) = (file.parent for file in manifests if json.loads(file.read_text())["fingerprint"] == fingerprint)

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    texts = [torch.tensor(tokenizer(d["text"], add_special_tokens=False)["input_ids"]) for d in documents]
    assert max(map(len, texts)) <= 512
    reference, candidate = _logp(smollm2, texts), _logp(modified, texts)
    kl = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, candidate, strict=True)])
    losses = [
        torch.cat([-rows.gather(1, ids[1:, None])[:, 0] for rows, ids in zip(side, texts, strict=True)])
        for side in (reference, candidate)
    ]
    top1 = torch.cat([(p.argmax(-1) == q.argmax(-1)).float() for p, q in zip(reference, candidate, strict=True)])

    assert report["tokens"] == len(kl)
    assert report["divergence"]["kl"]["mean"] == pytest.approx(float(kl.mean()), rel=0.03)
    assert report["divergence"]["kl"]["median"] == pytest.approx(float(kl.median()), rel=0.03)
    assert report["perplexity"]["reference"] == pytest.approx(float(losses[0].mean().exp()), rel=0.01)
    assert report["perplexity"]["candidate"] == pytest.approx(float(losses[1].mean().exp()), rel=0.01)
    assert report["top1_agreement"]["mean"] == pytest.approx(float(top1.mean()), abs=0.01)
