"""Which parts differ, and what their error is like: read from the weights and from what their inputs are like.

Names: O, I outputs and inputs of a linear module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from math import pi
from typing import Any

import numpy as np
import torch
from torch import nn

from app.kinds.attribute.report import Evidence
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.attribute.sites import Piece, Site
from workers.diagnosis.attribute.swapping import Model
from workers.surgery.blockwise.skeleton import Read

# The worst hundredth of input channels, and so many directions: what a few protected columns or a small repair hold.
CHANNELS, DIRECTIONS = 0.01, 16
# What a module is compared on: smaller ones hold everything in few directions. Noise of this size holds 0.62 in them,
# so that a share is reported beside what noise of the same shape holds.
FEWEST = 4 * DIRECTIONS
# Fields of config.json that say nothing of what a layer computes.
_IDLE = frozenset(
    {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures", "hemostat_simulation"}
    | {"quantization_config", "compression_config", "tie_word_embeddings", "use_cache"}
)
# Of the logits alone: no layer reads them, and the head that is put into the other model brings them along.
_OF_THE_HEAD = frozenset({"final_logit_softcapping", "logit_scale", "logits_scaling"})


def config_differences(reference: CheckpointInfo, candidate: CheckpointInfo) -> tuple[str, ...]:
    """Fields by which the two models compute differently, whatever their weights."""
    names = (reference.config.keys() | candidate.config.keys()) - _IDLE
    return tuple(sorted(n for n in names if reference.config.get(n) != candidate.config.get(n)))


def differing(
    sites: Iterable[Site],
    reference: CheckpointInfo,
    candidate: CheckpointInfo,
    reads: tuple[Read, Read],
    check_cancelled: Callable[[], None],
) -> list[Site]:
    """The parts that can be swapped and whose weights, or norms' epsilons, or what the head does with its product, are
    not the reference's.

    A part whose tensors have other shapes is left out, unless it is a whole layer: that one is run as it is.
    """
    fields = frozenset(config_differences(reference, candidate))
    config, head = fields - _OF_THE_HEAD, fields & _OF_THE_HEAD
    epsilon = any("eps" in name for name in config)
    cache: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor] | None] = {}
    layer: int | None = None

    def pair(names: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Both tensors; None if they are equal."""
        if names not in cache:
            ours, theirs = (read(name) for read, name in zip(reads, names, strict=True))
            cache[names] = None if torch.equal(ours.float(), theirs.float()) else (ours, theirs)
        return cache[names]

    found = []
    for site in sites:
        check_cancelled()
        if site.layer != layer:
            cache.clear()
            layer = site.layer
        names = list(zip(site.tensors, site.tensors_in(candidate), strict=True))
        shapes = [
            (reference.tensors[ours].shape, candidate.tensors[theirs].shape if theirs in candidate.tensors else None)
            for ours, theirs in names
        ]
        if any(ours != theirs for ours, theirs in shapes):
            if site.whole:
                found.append(site)
            continue
        computed_otherwise = (site.whole and config) or (site.kind == "norm" and epsilon)
        computed_otherwise = computed_otherwise or (site.kind == "head" and head)
        if computed_otherwise or any(_differs(p, pair(n)) for p, n in zip(site.pieces, names, strict=True)):
            found.append(site)
    return found


def _differs(piece: Piece, pair: tuple[torch.Tensor, torch.Tensor] | None) -> bool:
    if pair is None:
        return False
    if piece.dim is None:
        return True
    ours, theirs = (cut(tensor, piece) for tensor in pair)
    return not torch.equal(ours.float(), theirs.float())


def cut(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """The piece of a tensor."""
    return tensor if piece.dim is None else tensor.narrow(piece.dim, piece.start, piece.stop - piece.start)


@dataclass
class Inputs:
    """E[x²] of every linear module's inputs in the reference, on the first batch: layer by layer, as they are asked."""

    model: Model
    _layer: int | None = None
    _moments: Mapping[str, torch.Tensor] | None = None

    def of(self, layer: int) -> Mapping[str, torch.Tensor]:
        """Weight's name → (I) second moments."""
        if self._layer != layer or self._moments is None:
            self._layer, self._moments = layer, self._measured(layer)
        return self._moments

    @torch.no_grad()
    def _measured(self, layer: int) -> Mapping[str, torch.Tensor]:
        runner = self.model.runner
        found: dict[str, torch.Tensor] = {}
        block = runner.skeleton.block(layer)
        with ExitStack() as stack:
            for path, module in block.named_modules():
                if isinstance(module, nn.Linear):
                    name = f"model.layers.{layer}.{path}.weight"

                    def see(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                        found[name] = args[0].float().flatten(0, -2).square().mean(0)

                    stack.callback(module.register_forward_pre_hook(see).remove)
            start, end = next(iter(runner.batches()))
            runner.call(layer, self.model.borders.read(layer, start, end))
        runner.skeleton.release(layer)
        return found


def evidence(site: Site, reads: tuple[Read, Read], inputs: Inputs, candidate: CheckpointInfo) -> Evidence:
    """What a part's error is like. Shares are over its linear modules together, weighted with their inputs. Nothing is
    known of a layer some of whose tensors the candidate lacks, or has in other shapes."""
    if any(name not in candidate.tensors for name in site.tensors_in(candidate)):
        return Evidence(change=None)
    moments = inputs.of(site.layer) if site.layer is not None else {}
    change = size = channels = directions = noise = energy = wide = 0.0
    zeros = elements = 0
    for piece, other in zip(site.pieces, site.tensors_in(candidate), strict=True):
        ours, theirs = (cut(read(name), piece).float() for read, name in zip(reads, (piece.tensor, other), strict=True))
        if ours.shape != theirs.shape:
            return Evidence(change=None)
        delta = theirs - ours
        change += float(delta.square().sum())
        size += float(ours.square().sum())
        zeros += int(((theirs == 0) & (ours != 0)).sum())
        elements += ours.numel()
        moment_I = moments.get(piece.tensor)
        if moment_I is None or delta.ndim != 2:
            continue
        if piece.dim == 1:
            moment_I = moment_I[piece.start : piece.stop]
        weighted_OI = delta * moment_I.sqrt()
        energy_I = weighted_OI.square().sum(0)
        whole = float(energy_I.sum())
        energy += whole
        channels += float(energy_I.topk(max(1, round(CHANNELS * len(energy_I)))).values.sum())
        if min(weighted_OI.shape) >= FEWEST:
            wide += whole
            noise += whole * noise_share(*weighted_OI.shape, DIRECTIONS)
            # what is not finite has no singular values
            directions += _first_directions(weighted_OI) if math.isfinite(whole) else math.nan
    return Evidence(
        change=None if (squared := _over(change, size)) is None else squared**0.5,
        outlier_share=_over(channels, energy),
        low_rank_share=_over(directions, wide),
        low_rank_noise=_over(noise, wide),
        zeros=_over(zeros, elements),
    )


def _over(part: float, whole: float) -> float | None:
    """part / whole; None if that is no number, as of weights so large that their squares are not finite."""
    share = part / whole if whole else math.nan
    return share if math.isfinite(share) else None


def _first_directions(weighted_OI: torch.Tensor) -> float:
    """Energy in the first directions, by randomized subspace iteration (Halko et al. 2011): a lower bound that is close
    where they stand out."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(weighted_OI.shape[1], DIRECTIONS + 8, generator=generator, device="cpu")
    left, _ = torch.linalg.qr(weighted_OI @ basis.to(weighted_OI.device))
    for _ in range(3):
        right, _ = torch.linalg.qr(weighted_OI.T @ left)
        left, _ = torch.linalg.qr(weighted_OI @ right)
    values = torch.linalg.svdvals(left.T @ weighted_OI)
    return float(values[:DIRECTIONS].square().sum())


# Points of the integrals, whose integrands are smooth in the angle.
_POINTS = 20_000


@cache
def noise_share(rows: int, columns: int, directions: int) -> float:
    """Share of the energy of a large matrix of independent noise that is in its first directions. It is 0.38 of
    128×128 in sixteen, 0.62 of 64×64, and 1 if the matrix has no more directions.

    Squared singular values of i.i.d. noise, M×N with M <= N, over N follow the law of Marchenko & Pastur (1967). They
    are in (1 ± √γ)² with γ = M / N. Their density is √((λ₊ − λ)(λ − λ₋)) / (2πγλ) and their mean is 1.
    """
    fewer = min(rows, columns)
    if directions >= fewer:
        return 1.0
    ratio = fewer / max(rows, columns)
    # λ from its largest value down, by an angle: the density's roots at both ends are none there
    angle = (np.arange(_POINTS) + 0.5) * (pi / _POINTS)
    eigenvalue = 1 + ratio + 2 * np.sqrt(ratio) * np.cos(angle)
    energy = np.sin(angle) ** 2
    count = np.cumsum(energy / eigenvalue)
    first = np.searchsorted(count, count[-1] * directions / fewer)
    return float(energy[:first].sum() / energy.sum())
