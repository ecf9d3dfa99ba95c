"""Decoding-aware distances on the reference's texts, from hidden states that are stored; kept once computed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from app.contracts.decoding import Shaping
from workers.decoding.distances import ShapedDistances, shaped_distances
from workers.distributions.head import Head
from workers.process.handler import JobContext
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
    models' hidden_TD of window i. The heads are read once for all shapings. `folder` is of all that decides them, and
    keeps each window's for a later attempt."""
    if not shapings:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(int(window.scored.sum()) for window in windows)
    done = 0
    parts: list[list[ShapedDistances]] = []
    for index, window in enumerate(windows):
        context.check_cancelled()
        path = folder / f"{index:06d}.npz"
        found = _load(path, len(shapings))
        if found is None:
            rows = torch.from_numpy(np.flatnonzero(window.scored))
            ours_TD, theirs_TD = hidden(index)
            found = shaped_distances(
                [(ours_TD[rows], theirs_TD[rows])],
                heads[0],
                heads[1],
                shapings,
                check_cancelled=context.check_cancelled,
                progress=lambda positions, before=done: context.progress(  # type: ignore[misc]
                    PHASE, before + positions, total
                ),
            )
            _save(path, found)
        parts.append(found)
        done += int(window.scored.sum())
        context.progress(PHASE, done, total)
    return [ShapedDistances.concat(of_windows) for of_windows in zip(*parts, strict=True)]


def _save(path: Path, found: Sequence[ShapedDistances]) -> None:
    partial = path.with_suffix(".partial.npz")
    names = [field.name for field in fields(ShapedDistances)]
    np.savez(partial, **{f"{place}.{name}": getattr(one, name) for place, one in enumerate(found) for name in names})
    partial.replace(path)


def _load(path: Path, count: int) -> list[ShapedDistances] | None:
    names = [field.name for field in fields(ShapedDistances)]
    try:
        with np.load(path, allow_pickle=False) as file:
            return [ShapedDistances(**{name: file[f"{place}.{name}"] for name in names}) for place in range(count)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
