"""What goes on inside two models, block after block: which layer is which, where heads look, how errors grow.

The scratch folder keeps finished blocks as JSON, so that an attempt after a lost one measures no block twice. The
states at the borders go on where they were (`borders`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from app.kinds.attribute import blocks
from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS
from workers.diagnosis.attribute.activations import activation_growth
from workers.diagnosis.attribute.alignment import align
from workers.diagnosis.attribute.attention import attention_shift
from workers.diagnosis.attribute.borders import Borders, layer_elements
from workers.diagnosis.attribute.matching import Matching, gaps_between
from workers.diagnosis.attribute.readout import HEAD_TOKENS
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Block = TypeVar("Block", bound=Contract)
LEFT_OUT = "attention and growth of errors: not asked for (`internals` is false)"


@dataclass(frozen=True)
class Model:
    """A checkpoint, what reads its tensors, and where it runs."""

    info: CheckpointInfo
    read: Read
    device: str


def inner_bytes(infos: tuple[CheckpointInfo, CheckpointInfo], windows: int, length: int) -> int:
    """Bytes of a GPU that `internals` takes on so many windows. Computed, not measured.

    All is float32: embedding, head and a layer of each model, states of all windows, logits of some tokens, attention
    of a window.
    """
    elements = sum(2 * info.vocabulary * info.hidden_size + layer_elements(info) for info in infos)
    states = 4 * windows * length * sum(info.hidden_size for info in infos)
    logits = 6 * HEAD_TOKENS * infos[0].vocabulary
    heads = max(int(info.config["num_attention_heads"]) for info in infos)
    return 4 * (elements + states + logits + 6 * heads * length**2)


def internals(
    models: tuple[Model, Model],
    tokens_NL: torch.Tensor,
    document_N: Sequence[int] | NDArray[np.integer],
    scratch: Path,
    *,
    alignment_alone: bool = False,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> blocks.Internals:
    """Alignment, attention, activations of reference and candidate. `tokens_NL`: windows of one length, `document_N`
    their documents. `alignment_alone` leaves out all but the alignment.

    `not_measured` reports what these two models have no values of. Raises `HemostatError`: INVALID_REQUEST (windows too
    short), ACTIVATIONS_NOT_FINITE."""
    made: list[Borders] = []
    refused: list[str] = []
    hooks: dict[str, Any] = {"progress": progress, "check_cancelled": check_cancelled}

    def at_borders() -> list[Borders]:
        """Both models' states, run when the first block needs them."""
        if not made:
            made.extend(_borders(models, tokens_NL, scratch, hooks))
        return made

    def block(name: str, kind: type[Block], measure: Callable[..., Block], *along: Matching) -> Block | None:
        """What an earlier attempt left, or what is measured; None if it is refused."""
        file = scratch / f"{name}.json"
        if file.is_file():
            return kind.model_validate_json(file.read_bytes())
        try:
            found = measure(*at_borders(), *along, document_N, seed=seed, **hooks)
        except HemostatError as error:
            if error.code != ErrorCode.RECIPE_NOT_APPLICABLE:
                raise
            refused.append(f"{name}: {error.detail}")
            return None
        write_atomically(file, found.model_dump_json().encode())
        return found

    alignment = block("alignment", blocks.LayerAlignment, align)
    if alignment_alone:
        return blocks.Internals(alignment=alignment, not_measured=(*refused, LEFT_OUT))
    if alignment is None:
        return blocks.Internals(not_measured=tuple(refused))
    matching = _matching(alignment)
    attention = block("attention", blocks.AttentionShift, attention_shift, matching)
    activations = block("activations", blocks.ActivationGrowth, activation_growth, matching)
    return blocks.Internals(
        alignment=alignment, attention=attention, activations=activations, not_measured=tuple(refused)
    )


def _matching(alignment: blocks.LayerAlignment) -> Matching:
    """Of a block, which an earlier attempt may have left."""
    pairs = tuple((pair.reference, pair.candidate) for pair in alignment.pairs)
    return Matching(pairs, gaps_between(pairs, alignment.reference_layers, alignment.candidate_layers))


def _borders(
    models: tuple[Model, Model], tokens_NL: torch.Tensor, scratch: Path, hooks: dict[str, Any]
) -> list[Borders]:
    layouts = [LAYOUTS.get(model.info.architecture) for model in models]
    mixtures = all(layout is not None and layout.mixture for layout in layouts)
    found = []
    for name, model in zip(("reference", "candidate"), models, strict=True):
        read = fused(model.info, model.read) if mixtures else model.read
        skeleton = Skeleton(model.info, read, device=model.device, dtype=torch.float32, mixtures=mixtures)
        found.append(Borders(skeleton, tokens_NL, scratch, name=name, **hooks))
    return found
