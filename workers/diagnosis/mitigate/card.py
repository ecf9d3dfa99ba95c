"""The model card of a recommended recipe: Markdown with the header that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from app.contracts.report import Mean
from app.kinds.mitigate.report import FrontPoint, MitigateReport
from app.kinds.mitigate.request import MitigateRequest

# The repair as a LoRA, where a whole checkpoint is beside it.
ARCHIVE_FILE: Final = "adapter.zip"
# Where a LoRA alone was to be left, and it goes on weights that are left with a checkpoint only.
_NO_LORA: Final = (
    "\n\nNo LoRA is beside this card: the repair's goes on weights that its rounds (`iterations`) made again, and "
    f"without them it is of no use. With `export` `checkpoint` both are left, in `{ARCHIVE_FILE}`."
)
_WINDOW: Final = MitigateRequest.model_fields["window"].default


def model_card(report: MitigateReport, files: Sequence[str], *, anew: bool = False) -> str:
    """The card. It shows what was done, what it costs and saves, how it was tested, and how to make it. `anew`: whether
    the weights that the repair's LoRA goes on were made in its rounds."""
    point = next(one for one in report.front if one.recommended)
    before = next((one for one in report.front if not one.treatments), None)
    source = report.provenance
    alias = source.candidate.model
    rows = [("", "KL, nats per token (95 %)", "bytes", "bits per weight", "tokens/s")]
    if before is not None:
        rows.append(("candidate", *_row(before)))
    rows.append(("**treated**", *_row(point)))
    table = "\n".join(
        ["| " + " | ".join(rows[0]) + " |", "|---" * 5 + "|", *("| " + " | ".join(row) + " |" for row in rows[1:])]
    )
    window = source.protocol.window
    scored = "" if window == _WINDOW else f" --window {window}"
    apart = "took no part in fitting or choosing"
    if (report.request or {}).get("allow_overlap"):
        apart = "took no part in choosing (allow_overlap: treatments may have looked at some of them)"
        scored += " --allow-overlap"
    beside = _files(files, _goes_on(point, before, anew=anew)) or (_NO_LORA if anew else "")
    held = "\n".join(f"- {line}" for line in (one.text for one in (*report.not_tested, *report.warnings)))
    return f"""---
base_model: {json.dumps(source.reference.model)}
tags: [hemostat, compressed, repaired]
---

# {alias}, treated

{report.verdict}

{table}

KL is KL(reference ‖ model) over the full vocabulary, on {report.tokens:,} tokens of {report.documents} test documents
that {apart} and were read once, after the recipe was frozen
(SHA-256 `{report.seal.frozen[:16]}…`). Bytes are what the weights take packed. Tokens/s are those of the
engine that scores ({source.engine}, {source.device}), not of serving: the median of a few passes, and the
slowest and the fastest.

## Recipe

Applied to `{alias}`:

```json
{json.dumps(list(report.recommended or ()), indent=2)}
```

## How to make it

`recipe.json` beside this card holds the recipe. The result is the same for the same inputs; its weights have the
fingerprint `{point.weights_fingerprint}`.

```sh
hemostat compare --reference {source.reference.model} --candidate {alias} --recipe @recipe.json{scored}
hemostat deploy create treated --model {alias} --reference {source.reference.model} --recipe @recipe.json
```

Either makes the checkpoint below the service's `checkpoints` folder and measures or serves it.{beside}

## What this does not tell

{held}
"""


def _row(point: FrontPoint) -> tuple[str, str, str, str]:
    speed = f"{point.tokens_per_second:,.0f}"
    if point.tokens_per_second_range is not None:
        speed += " ({:,.0f} to {:,.0f})".format(*point.tokens_per_second_range)
    return (_mean(point.kl), f"{point.bytes:,}", f"{point.bits_per_weight:.3f}", speed)


def _mean(mean: Mean) -> str:
    if mean.mean is None:
        return "–"
    return f"{mean.mean:.4g}" + (f" [{mean.ci[0]:.4g}, {mean.ci[1]:.4g}]" if mean.ci else "")


def _files(files: Sequence[str], goes_on: str) -> str:
    """`goes_on`: what the repair's LoRA is loaded on."""
    if not files:
        return ""
    told = "\n\nFiles beside this card: " + ", ".join(f"`{name}`" for name in files) + "."
    loaded = f"a LoRA that PEFT and vLLM load, for {goes_on}"
    if "adapter_config.json" in files:
        told += f" `adapter_config.json` and `adapter_model.safetensors` are the repair as {loaded}."
    if ARCHIVE_FILE in files:
        told += f" `{ARCHIVE_FILE}` holds the repair, which is merged into the checkpoint, as {loaded}."
    return told


def _goes_on(point: FrontPoint, before: FrontPoint | None, *, anew: bool) -> str:
    """What the repair that a recipe ends with was made for."""
    if anew:
        return "the weights in its folder `base`"
    if before is not None and point.recipe[:-1] == before.recipe:
        return "the candidate"
    return "the checkpoint that the recipe makes without its last step"
