"""The fits of a calibrate job. Each is kept on disk as far as it has come, so that no attempt does anything twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from app.contracts.blocks import RANK
from app.contracts.errors import HemostatError
from app.contracts.profile import Setting
from app.files import write_atomically
from app.models.checkpoint import CheckpointInfo
from app.recipes.repair import MICRO_TOKENS
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.fit import fit
from workers.calibration.fitting.objective import Objective
from workers.calibration.fitting.spec import Spec
from workers.calibration.reductions import Reductions
from workers.calibration.rows import Rows
from workers.calibrators import storage
from workers.calibrators.base import Base
from workers.calibrators.blocks import Blocks
from workers.calibrators.identity import Identity
from workers.distributions.head import pair_on
from workers.engine.sizes import ITEM_BYTES, largest_block, training_bytes
from workers.measuring.sides import Sides
from workers.process.handler import JobContext

RECORD_FILE = "fit.json"
# Of the hidden state's width, that a low-rank map's fit holds at once, about.
_MATRICES = 20
# The same of the fit of a block: sums over the fitted documents and those that decide, and what is solved in float64.
_BLOCK_MATRICES = 24
# Rows and their logits, a few times over.
_CHUNK_BYTES = 1024**3


@dataclass(frozen=True)
class Fitted:
    """A fitted calibrator, where it is stored, and the settings that it was fitted with."""

    calibrator: Base
    folder: Path
    settings: dict[str, Setting]


def fit_bytes(reference: CheckpointInfo, candidate: CheckpointInfo, device: str) -> int:
    """Bytes of a GPU that fits, choice and test take at most, with both heads in float32; 0 on a CPU. Reckoned, not
    measured."""
    if device == "cpu":
        return 0
    heads = sum(info.vocabulary * info.hidden_size for info in (reference, candidate))
    return ITEM_BYTES["float32"] * (heads + _MATRICES * candidate.hidden_size**2) + _CHUNK_BYTES


def walk_bytes(reference: CheckpointInfo, item: int, device: str) -> int:
    """Bytes of a GPU that the walk through both models takes: of each, which are of one shape, embedding and largest
    block, `item` bytes a number; 0 on a CPU. Reckoned, not measured."""
    if device == "cpu":
        return 0
    width = reference.hidden_size
    models = 2 * item * (reference.vocabulary * width + largest_block(reference))
    return models + ITEM_BYTES["float32"] * _BLOCK_MATRICES * width**2 + _CHUNK_BYTES


def refine_bytes(reference: CheckpointInfo, candidate: CheckpointInfo, item: int, window: int, device: str) -> int:
    """Bytes of a GPU that refining the block corrections takes, with windows of so many tokens: what is trained is
    there four times, in float32. 0 on a CPU. Reckoned, not measured."""
    if device == "cpu":
        return 0
    numbers = candidate.layers * candidate.hidden_size * (2 * RANK + 1)
    return training_bytes(candidate, reference, item, max(MICRO_TOKENS, window)) + 4 * ITEM_BYTES["float32"] * numbers


class Fits:
    """Fits calibrators on rows of the fit set, stopped by rows of the choose set, on `device`."""

    def __init__(
        self,
        sides: Sides,
        rows: Rows,
        stop: Rows,
        *,
        blocks: Blocks | None,
        folder: Path,
        device: str,
        seed: int,
        context: JobContext,
    ) -> None:
        heads = pair_on(sides.reference.head, sides.candidate.head, device)
        self._data, self._stop = (
            FitData(
                reference_TD=part.reference_TD,
                candidate_TD=part.candidate_TD,
                context=part.context,
                document_T=torch.from_numpy(part.positions.document.astype("int64")),
                reference_head=heads[0],
                candidate_head=heads[1],
            )
            for part in (rows, stop)
        )
        self._corrected = (rows.corrected_TD, stop.corrected_TD)
        self._blocks = blocks
        self._folder = folder
        self._device = device
        self._seed = seed
        self._context = context

    def all(self, names: Sequence[str]) -> dict[str, Fitted]:
        """Each of the named, once; those that an earlier attempt finished are read."""
        context = self._context
        wanted = list(dict.fromkeys(Spec.parse(name).name for name in names))
        made: dict[str, Fitted] = {}
        for number, name in enumerate(wanted):
            context.progress("fit", 1000 * number, 1000 * len(wanted))
            known = {Spec.parse(done).kinds: fitted.calibrator for done, fitted in made.items()}
            if self._blocks is not None:
                known[Spec.parse(Blocks.KIND).kinds] = self._blocks
            made[name] = self._kept(name) or self._fit(name, number, len(wanted), known)
        context.progress("fit", 1000 * len(wanted), 1000 * len(wanted))
        return made

    def _kept(self, name: str) -> Fitted | None:
        folder = self._folder / name
        try:
            settings = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
            return Fitted(storage.load(folder), folder, settings)
        except (OSError, ValueError, HemostatError):
            return None

    @cached_property
    def _blocks_help(self) -> bool:
        """Whether the candidate's KL on the stop set is lower with corrections after each block; not if it is not
        finite."""
        objective = Objective(self._data.reference_head, self._data.candidate_head, device=self._device)
        raw, corrected = (
            objective.kept_mean(lambda: None, part, self._context.check_cancelled, Reductions(), "stop")
            for part in (self._stop, self._sets(Spec((Blocks.KIND,)))[1])
        )
        return corrected < raw

    def _keep(self, name: str, calibrator: Base, settings: dict[str, Setting]) -> Fitted:
        folder = self._folder / name
        storage.save(calibrator, folder)
        # Last: what has a record is whole.
        write_atomically(folder / RECORD_FILE, json.dumps(settings).encode())
        return Fitted(calibrator, folder, settings)

    def _sets(self, spec: Spec) -> tuple[FitData, FitData]:
        """What a composition is fitted on and stopped by: after corrections of the blocks, what these have left."""
        if Blocks.KIND not in spec.kinds:
            return self._data, self._stop
        data, stop = (
            replace(part, candidate_TD=corrected_TD)
            for part, corrected_TD in zip((self._data, self._stop), self._corrected, strict=True)
            if corrected_TD is not None
        )
        return data, stop

    def _log_left_out(self, name: str, kind: str) -> None:
        self._context.log(f"fit of {name}: {kind} did not help on the stop set and was left out")

    def _fit(self, name: str, number: int, count: int, known: Mapping[tuple[str, ...], Base]) -> Fitted:
        context = self._context

        def progress(_phase: str, done: int, total: int) -> None:
            part = min(999, round(1000 * done / total)) if total else 0
            context.progress("fit", 1000 * number + part, 1000 * count)

        reductions = Reductions(self._folder / f"{name}.part")
        spec = Spec.parse(name)
        if self._blocks is not None and Blocks.KIND in spec.kinds:
            if not self._blocks_help:
                self._log_left_out(name, Blocks.KIND)
                spec = replace(spec, kinds=tuple(kind for kind in spec.kinds if kind != Blocks.KIND))
            if spec.kinds in ((), (Blocks.KIND,)):
                return self._keep(name, self._blocks if spec.kinds else Identity(), {})
        calibrator, record = fit(
            spec,
            *self._sets(spec),
            device=self._device,
            seed=self._seed,
            known=known,
            progress=progress,
            check_cancelled=context.check_cancelled,
            reductions=reductions,
        )
        told = asdict(record)
        settings: dict[str, Setting] = {
            **record.settings,
            "fit_rows": record.fit_rows,
            "stop_rows": record.stop_rows,
            "rounds": len(record.steps),
            "stopped_early": "+".join(told["stopped_early"]),
        }
        for kind in record.left_out:
            self._log_left_out(name, kind)
        kept = self._keep(name, calibrator, settings)
        reductions.drop()
        return kept
