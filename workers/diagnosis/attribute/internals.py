"""All that is measured inside two models, block after block, as a job asks for it: the one call that it makes.

What is finished is kept in the scratch folder as JSON, so that an attempt after a lost one measures no block twice; the
states at the borders go on where they were (`borders`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.attribute import blocks
from app.kinds.attribute.plan import REPAIR_TOKENS
from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS
from workers.diagnosis.attribute.activations import activation_errors, self_repair
from workers.diagnosis.attribute.alignment import align
from workers.diagnosis.attribute.attention import attention_shift
from workers.diagnosis.attribute.blocks import (
    activations_block,
    alignment_block,
    attention_block,
    measured,
    routing_block,
)
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.matching import Matching, gaps_between
from workers.diagnosis.attribute.moe import routing_shift
from workers.diagnosis.attribute.readout import NO_KINDS
from workers.measuring.plan import spread
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Block = TypeVar("Block", bound=Contract)
LEFT_OUT = "attention, growth of errors and routing: not asked for (`internals` is false)"


@dataclass(frozen=True)
class Model:
    """A checkpoint and what reads its tensors."""

    info: CheckpointInfo
    read: Read


def internals(
    reference: Model,
    candidate: Model,
    tokens_NL: torch.Tensor,
    document_N: Sequence[int] | NDArray[np.integer],
    scratch: Path,
    *,
    kinds: Mapping[str, torch.Tensor] = NO_KINDS,
    renumbered: str = "",
    alignment_alone: bool = False,
    repair_tokens: int = REPAIR_TOKENS,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> blocks.Internals:
    """Alignment, attention, activations; of two mixtures of experts routing, too. `tokens_NL`: windows of one length,
    `document_N` their documents, `kinds` masks (N, L) of tokens by each of which nats are reported, too; self-repair is
    measured on about `repair_tokens` of them. `renumbered` says why layers of one number are no counterparts, where
    that is known beforehand. `alignment_alone` leaves out all but the alignment.

    What cannot be measured of these two (a mixture against a dense model, routers of layers that have other numbers) is
    reported in `not_measured`. Raises `HemostatError`: INVALID_REQUEST (windows too short), ACTIVATIONS_NOT_FINITE."""
    documents = np.asarray(document_N)
    work = _Work(reference, candidate, tokens_NL, documents, kinds, scratch, seed, progress, check_cancelled)
    alignment = work.kept("alignment", blocks.LayerAlignment, work.alignment)
    if alignment_alone:
        return blocks.Internals(alignment=alignment, not_measured=(*work.refused, LEFT_OUT))
    routing = None
    if work.mixtures:
        routing = work.kept("routing", blocks.RoutingShift, lambda: work.routing(renumbered))
    if alignment is None:
        return blocks.Internals(routing=routing, not_measured=tuple(work.refused))
    matching = _matching(alignment)
    return blocks.Internals(
        alignment=alignment,
        attention=work.kept("attention", blocks.AttentionShift, lambda: work.attention(matching)),
        activations=work.kept(
            "activations", blocks.ActivationGrowth, lambda: work.activations(matching, repair_tokens)
        ),
        routing=routing,
        not_measured=tuple(work.refused),
    )


def _matching(alignment: blocks.LayerAlignment) -> Matching:
    """Of a block, which an earlier attempt may have left."""
    pairs = tuple((pair.reference, pair.candidate) for pair in alignment.pairs)
    score = sum(pair.similarity for pair in alignment.pairs)
    return Matching(pairs, gaps_between(pairs, alignment.reference_layers, alignment.candidate_layers), score)


class _Work:
    """The blocks, each made when it is asked for and not yet kept."""

    def __init__(
        self,
        reference: Model,
        candidate: Model,
        tokens_NL: torch.Tensor,
        document_N: NDArray[Any],
        kinds: Mapping[str, torch.Tensor],
        scratch: Path,
        seed: int,
        progress: Progress,
        check_cancelled: CheckCancelled,
    ) -> None:
        self._models, self._tokens_NL, self._document_N = (reference, candidate), tokens_NL, document_N
        self._kinds, self._scratch, self._seed = kinds, scratch, seed
        self._hooks: dict[str, Any] = {"progress": progress, "check_cancelled": check_cancelled}
        self._text = measured((tokens_NL.shape[0], tokens_NL.shape[1]), document_N)
        self._borders: tuple[Borders, Borders] | None = None
        layouts = [LAYOUTS.get(model.info.architecture) for model in self._models]
        self.mixtures = all(layout is not None and layout.mixture for layout in layouts)
        self.refused: list[str] = []

    def kept(self, name: str, kind: type[Block], make: Callable[[], Block]) -> Block | None:
        """What an earlier attempt left, or what `make` makes; None where it is refused."""
        file = self._scratch / f"{name}.json"
        if file.is_file():
            return kind.model_validate_json(file.read_bytes())
        try:
            block = make()
        except HemostatError as error:
            if error.code != ErrorCode.RECIPE_NOT_APPLICABLE:
                raise
            self.refused.append(f"{name}: {error.detail}")
            return None
        _write(file, block)
        return block

    def routing(self, renumbered: str) -> blocks.RoutingShift:
        """Of two mixtures whose layers stand for each other by their numbers."""
        ours, theirs = (model.info for model in self._models)
        why = renumbered
        if ours.layers != theirs.layers:
            why = f"the models have {ours.layers} and {theirs.layers}"
        if why:
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"routers are compared by the numbers of their layers, and {why}",
                hint="the other blocks follow the alignment",
            )
        folder = self._scratch / "routers"
        found = routing_shift(ours, theirs, self._tokens_NL, self._document_N, folder, **self._hooks)
        return routing_block(found, self._text, seed=self._seed, check_cancelled=self._hooks["check_cancelled"])

    def alignment(self) -> blocks.LayerAlignment:
        """Of two dense models, or of two mixtures."""
        found = align(*self._at_borders(), self._document_N, kinds=self._kinds, seed=self._seed, **self._hooks)
        return alignment_block(found, self._text, seed=self._seed)

    def attention(self, matching: Matching) -> blocks.AttentionShift:
        """Along the alignment."""
        found = attention_shift(*self._at_borders(), matching, self._document_N, **self._hooks)
        return attention_block(found, self._text, seed=self._seed, check_cancelled=self._hooks["check_cancelled"])

    def activations(self, matching: Matching, repair_tokens: int) -> blocks.ActivationGrowth:
        """Along the alignment, with self-repair on evenly spread windows."""
        found = activation_errors(*self._at_borders(), matching, self._document_N, **self._hooks)
        windows, length = self._tokens_NL.shape
        chosen = spread([length] * windows, tokens=repair_tokens)
        repair = self_repair(
            *self._at_borders(), matching, self._document_N, self._scratch, windows=chosen, **self._hooks
        )
        text = measured((len(chosen), length), self._document_N[chosen])
        asked = self._hooks["check_cancelled"]
        return activations_block(found, self._text, repair, text, seed=self._seed, check_cancelled=asked)

    def _at_borders(self) -> tuple[Borders, Borders]:
        if self._borders is None:
            made = [
                Borders(
                    Skeleton(
                        model.info,
                        fused(model.info, model.read) if self.mixtures else model.read,
                        dtype=torch.float32,
                        mixtures=self.mixtures,
                    ),
                    self._tokens_NL,
                    self._scratch,
                    name=name,
                    **self._hooks,
                )
                for name, model in zip(("reference", "candidate"), self._models, strict=True)
            ]
            self._borders = made[0], made[1]
        return self._borders


def _write(file: Path, block: Contract) -> None:
    """Whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(block.model_dump_json())
    partial.replace(file)
