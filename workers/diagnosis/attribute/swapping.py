"""Parts of one model in the other, and what that costs: only the layers from the part on are run again.

Each measurement is KL(reference ‖ model with the part) at every scored position of a batch of windows. It is kept in a
file of its own, so that no attempt measures it twice. Weights come from the files one layer at a time and hidden states
from mapped files: memory does not grow with depth or with text.

Names: N windows, n windows of a batch, L tokens of a window, T scored positions, D hidden size.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from workers.diagnosis.attribute.borders import Borders, Runner
from workers.diagnosis.attribute.mixing import THEIRS, Mixed, Mode, twin
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.subset import Subset
from workers.distributions.divergence import Divergence
from workers.distributions.head import Head
from workers.surgery.callbacks import CheckCancelled, never_cancelled

Side = Literal["reference", "candidate"]
Array = NDArray[np.float32]
# States of a run that are in memory at once; before and after the final norm there are three of each.
STATES_BYTES = 256 * 2**20
# What norms of several architectures call their epsilon.
_EPSILONS = ("variance_epsilon", "eps")


@dataclass
class Model:
    """One of the two: its states at every border, its weights with pieces exchanged on demand, its head."""

    borders: Borders
    mixed: Mixed
    head: Head

    @property
    def runner(self) -> Runner:
        """Its layers."""
        return self.borders.runner

    def norm(self) -> nn.Module:
        """Its final norm, with its weights as they are now."""
        skeleton = self.runner.skeleton
        module: nn.Module = skeleton.model.model.norm
        skeleton.load(module, "model.norm.")
        return module


@dataclass
class Swapper:
    """Measures sets of parts. `ledger` is a folder that belongs to these models and this text alone."""

    reference: Model
    candidate: Model
    subset: Subset
    ledger: Path
    check_cancelled: CheckCancelled = never_cancelled
    # layers and seconds that suffix runs took in this attempt
    run_layers: int = 0
    seconds: float = 0.0
    _divergences: dict[tuple[int, int], tuple[Head, Divergence]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger.mkdir(parents=True, exist_ok=True)
        self.batches = list(self.reference.runner.batches())

    @property
    def layers(self) -> int:
        """Decoder layers of either."""
        return self.reference.runner.layers

    def positions(self, batches: int) -> int:
        """Scored positions of the first so many batches."""
        return self.subset.positions(self.batches[batches - 1][1])

    def kl(
        self,
        sites: Iterable[Site],
        *,
        into: Side = "reference",
        mode: Mode = THEIRS,
        batches: int | None = None,
    ) -> Array:
        """(T) KL(reference ‖ `into` with these parts exchanged) at the scored positions of the first `batches`."""
        chosen = sorted(set(sites), key=lambda site: site.name)
        wanted = range(len(self.batches) if batches is None else batches)
        missing = [number for number in wanted if not self._file(chosen, into, mode, number).is_file()]
        if missing:
            began = time.perf_counter()
            step = self._together()
            for start in range(0, len(missing), step):
                self._run(chosen, into, mode, missing[start : start + step])
            self.seconds += time.perf_counter() - began
        empty = np.zeros(0, dtype=np.float32)
        return np.concatenate([empty, *(np.load(self._file(chosen, into, mode, number)) for number in wanted)])

    def cost(self, sites: Iterable[Site]) -> float:
        """Forward passes of the whole model that one measurement on the whole subset takes. A pass is every layer and
        one product with the head. A measurement is the layers from the part on and two products."""
        head = self.head_layers
        return (self.layers - self._first(list(sites)) + 2 * head) / (self.layers + head)

    @property
    def head_layers(self) -> float:
        """What the product with the head costs, in layers."""
        info = self.reference.runner.skeleton.info
        inside = sum(t.elements for name, t in info.tensors.items() if name.startswith("model.layers."))
        return self.reference.head.weight_VD.numel() / max(1.0, inside / self.layers)

    def release(self) -> None:
        """Forgets heads and embeddings on its device; what is measured after it loads them again."""
        self._divergences.clear()
        for model in (self.reference, self.candidate):
            model.runner.skeleton.release_embedding()

    # --- running

    @property
    def _device(self) -> torch.device:
        return self.reference.runner.skeleton.device

    def _together(self) -> int:
        """Batches whose states are in memory at once: layers are read again for each so many."""
        first, end = self.batches[0]
        _, length = self.subset.tokens_NL.shape
        borders = self.reference.borders
        return max(1, STATES_BYTES // ((end - first) * length * borders.hidden_size * borders.dtype.itemsize))

    def _first(self, sites: Sequence[Site]) -> int:
        """The border where the run begins; 0 with an embedding, after the last layer with what comes behind."""
        firsts = [
            0 if site.kind == "embedding" else self.layers if site.layer is None else site.layer for site in sites
        ]
        return min(firsts, default=self.layers)

    @torch.no_grad()
    def _run(self, sites: Sequence[Site], into: Side, mode: Mode, numbers: Sequence[int]) -> None:
        own, other = (self.reference, self.candidate) if into == "reference" else (self.candidate, self.reference)
        first = self._first(sites)
        states = self._entering(sites, own, mode, first, numbers)
        for layer in range(first, self.layers):
            here = [site for site in sites if site.layer == layer]
            model = own
            if mode.kind == "theirs" and any(site.whole for site in here):
                model, here = other, []  # its own module: another epsilon, other rotary angles, other widths
            model.mixed.exchange((piece for site in here for piece in site.pieces), mode)
            block = model.runner.skeleton.block(layer)
            undo = _with_epsilons(block, other.runner.skeleton.layers[layer], layer, here, mode)
            for index, hidden_NLD in enumerate(states):
                self.check_cancelled()
                states[index] = model.runner.call(layer, hidden_NLD)
            undo()
            model.runner.skeleton.release(layer)
            model.mixed.exchange((), THEIRS)
            self.run_layers += 1
        self._read_out(sites, into, own, other, mode, states, numbers)

    def _entering(
        self, sites: Sequence[Site], own: Model, mode: Mode, first: int, numbers: Sequence[int]
    ) -> list[torch.Tensor]:
        """States at the border where the run begins."""
        inside = [site for site in sites if site.kind == "embedding"]
        bounds = [self.batches[number] for number in numbers]
        if not inside:
            return [own.borders.read(first, start, end) for start, end in bounds]
        skeleton = own.runner.skeleton
        own.mixed.exchange((piece for site in inside for piece in site.pieces), mode)
        skeleton.release_embedding()
        try:
            return [own.runner.embedded(start, end) for start, end in bounds]
        finally:
            own.mixed.exchange((), THEIRS)
            skeleton.release_embedding()

    def _read_out(
        self,
        sites: Sequence[Site],
        into: Side,
        own: Model,
        other: Model,
        mode: Mode,
        states: Sequence[torch.Tensor],
        numbers: Sequence[int],
    ) -> None:
        """Final norm and head of the mixed model against the reference's, batch by batch, into the ledger."""
        outside = [site for site in sites if site.layer is None and site.kind == "norm"]
        norm_reference = self.reference.norm()
        # the same module serves both where the model is the reference itself: its outputs first, its change then
        expected = [
            norm_reference(self.reference.borders.read(self.layers, *self.batches[number])) for number in numbers
        ]
        own.mixed.exchange((piece for site in outside for piece in site.pieces), mode)
        norm = own.norm()
        undo = _with_epsilons(norm, other.runner.skeleton.model.model.norm, None, outside, mode)
        found = [norm(hidden_NLD) for hidden_NLD in states]
        undo()
        own.mixed.exchange((), THEIRS)
        head = self._head(sites, own, other, mode)
        divergence = self._divergence(head, keep=mode.kind != "twin")
        chosen = sorted(set(sites), key=lambda site: site.name)
        for number, first_NLD, second_NLD in zip(numbers, expected, found, strict=True):
            start, end = self.batches[number]
            scored_NL = self.subset.scored_NL[start:end]
            there_NL = scored_NL.to(self._device)
            values = divergence(
                first_NLD[there_NL],
                second_NLD[there_NL],
                self.subset.next_NL[start:end][scored_NL],
                check_cancelled=self.check_cancelled,
            )
            kl = np.where(values.finite, values.kl, np.nan).astype(np.float32)
            _write(self._file(chosen, into, mode, number), kl)

    def _head(self, sites: Sequence[Site], own: Model, other: Model, mode: Mode) -> Head:
        if not any(site.kind == "head" for site in sites):
            return own.head
        if mode.kind == "theirs":
            return other.head
        weight = own.head.weight_VD.clone()
        if mode.kind == "twin":
            weight = twin(weight, other.head.weight_VD, mode.seed)
        return replace(own.head, weight_VD=weight)

    def _divergence(self, head: Head, *, keep: bool) -> Divergence:
        key = (id(self.reference.head), id(head))
        known = self._divergences.get(key)
        if known is not None:
            return known[1]
        made = Divergence(self.reference.head, head, device=self._device)
        if keep:
            self._divergences[key] = (head, made)
        return made

    def _file(self, sites: Sequence[Site], into: Side, mode: Mode, number: int) -> Path:
        told = "\n".join([into, mode.key, str(number), *(site.name for site in sites)])
        return self.ledger / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.npy"


def _with_epsilons(
    module: nn.Module, theirs: nn.Module, layer: int | None, sites: Sequence[Site], mode: Mode
) -> Callable[[], None]:
    """Norms among the parts take the other model's epsilon with its weights; returns what undoes that."""
    if mode.kind != "theirs":
        return lambda: None
    kept: list[tuple[Any, str, float]] = []
    for site in sites:
        if site.kind != "norm":
            continue
        path = "" if layer is None else site.name.removeprefix(f"layers.{layer}.")
        mine, other = module.get_submodule(path), theirs.get_submodule(path)
        for name in _EPSILONS:
            if hasattr(mine, name) and getattr(mine, name) != getattr(other, name):
                kept.append((mine, name, getattr(mine, name)))
                setattr(mine, name, getattr(other, name))

    def undo() -> None:
        for one, name, value in kept:
            setattr(one, name, value)

    return undo


def _write(path: Path, column: Array) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as stream:
        np.save(stream, column)
    partial.replace(path)
