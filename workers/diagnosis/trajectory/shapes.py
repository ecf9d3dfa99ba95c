"""Decoding-aware distances on the reference's texts, from hidden states that are stored; kept once computed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from app.contracts.decoding import Shaping
from workers.decoding.distances import ShapedDistances, shaped_distances
from workers.diagnosis.context import JobContext
from workers.distributions.head import Head
from workers.text.windows import Window

PHASE = "shapes"


def distances_after(
    shapings: Sequence[Shaping],
    windows: Sequence[Window],
    hidden: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
    heads: tuple[Head, Head],
    *,
    folder: Path,
    context: JobContext,
) -> list[ShapedDistances]:
    """Distances at the scored positions of `windows` after each of `shapings`, in that order; `hidden(i)` gives both
    models' hidden_TD of window i. `folder` is of all that decides them, and keeps them for a later attempt."""
    missing = [number for number in range(len(shapings)) if _load(folder / f"{number}.npz") is None]
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(int(window.scored.sum()) for window in windows)
    for place, number in enumerate(missing):
        (made,) = shaped_distances(
            _positions(windows, hidden),
            heads[0],
            heads[1],
            [shapings[number]],
            check_cancelled=context.check_cancelled,
            progress=lambda done, place=place: context.progress(  # type: ignore[misc]
                PHASE, place * total + done, len(missing) * total
            ),
        )
        _save(folder / f"{number}.npz", made)
    found = [_load(folder / f"{number}.npz") for number in range(len(shapings))]
    return [one for one in found if one is not None]


def _positions(
    windows: Sequence[Window], hidden: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for index, window in enumerate(windows):
        rows = torch.from_numpy(np.flatnonzero(window.scored))
        ours_TD, theirs_TD = hidden(index)
        yield ours_TD[rows], theirs_TD[rows]


def _save(path: Path, distances: ShapedDistances) -> None:
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **{field.name: getattr(distances, field.name) for field in fields(distances)})
    partial.replace(path)


def _load(path: Path) -> ShapedDistances | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return ShapedDistances(**{field.name: file[field.name] for field in fields(ShapedDistances)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
