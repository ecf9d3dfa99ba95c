"""What a trajectory job leaves beside its report: every text's tokens, and what it exports to Prometheus."""

from __future__ import annotations

import json
import time
from typing import Final

from app.contracts.report import SEVERITIES
from app.files import write_atomically
from app.kinds.trajectory.report import TrajectoryReport
from workers.diagnosis.trajectory.report import Found, base_values
from workers.measuring.gauges import send
from workers.process.handler import JobContext
from workers.text.tokenization import load_tokenizer

# One JSON object a line: decoder, model, document, and the token ids; text where it may be stored.
TEXTS_FILE: Final = "texts.jsonl"


def export(report: TrajectoryReport, found: Found, context: JobContext) -> None:
    """Writes the artifact and sends the gauges of each candidate."""
    write_atomically(context.output / TEXTS_FILE, _lines(found).encode())
    for index, run in enumerate(report.candidates):
        labels = report.labels(run.model)
        cells = [cell for cell in report.cells if cell.candidate == index]
        first = cells[0]
        gauges = {
            "severity": float(SEVERITIES.index(run.severity)),
            "trajectory_kl_candidate_text_nats": first.kl_candidate_text.mean,
            "trajectory_shared_prefix_tokens": first.first_divergence.shared_prefix.mean,
            "last_measurement_timestamp_seconds": time.time(),
        }
        send(gauges, labels, context)
        for cell in cells:
            send(
                {"trajectory_amplification_ratio": cell.amplification.kl.value},
                labels | {"decoder": cell.decoder},
                context,
            )
        values = base_values(found, index)
        context.observe_many("kl_nats", values.kl[values.finite].tolist(), **labels)


def _lines(found: Found) -> str:
    tokenizer = load_tokenizer(found.sides[0].reference.tokenizer) if found.request.keeps_text else None
    lines = []
    for model, written in enumerate(found.written):
        for decoder, texts in written.texts.items():
            for prompt, text in zip(found.prompts, texts, strict=True):
                line: dict[str, object] = {
                    "decoder": decoder,
                    "model": "reference" if model == 0 else f"candidate {model}",
                    "document": prompt.document,
                    "domain": prompt.domain,
                    "ended": text.ended,
                    "tokens": list(text.tokens),
                }
                if tokenizer is not None:
                    line["prompt"] = str(tokenizer.decode(list(prompt.tokens), clean_up_tokenization_spaces=False))
                    line["text"] = str(tokenizer.decode(list(text.tokens), clean_up_tokenization_spaces=False))
                lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"
