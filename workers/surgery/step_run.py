"""What a step that takes the checkpoint as a whole is given, and where it puts what it makes.

Everything it makes goes to disk at once, one tensor at a time. The new checkpoint is written from there and from the
source when the step is done, so that memory holds what the step itself holds. What was written is removed at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from app.contracts.notice import Notice
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, natural_key
from app.recipes.base import Step
from app.recipes.lowrank import Truncated
from app.recipes.recipe import Recipe
from app.recipes.repair import RepairLowrank
from workers.surgery.account import change_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.callbacks import CheckCancelled, Progress
from workers.surgery.channels import Channels
from workers.surgery.manifest import TensorChange
from workers.surgery.reading import TensorReader, check_finite
from workers.surgery.safetensors_writer import DTYPES, Planned, ShardWriter, plan_shards, write_shards
from workers.surgery.width import width_of

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class StepRun:
    """One whole step at work.

    `source` is the checkpoint as the steps before left it, `base` the one before all steps. `reference` is the
    unmodified model of the job (the base, unless a job says otherwise): only methods that align with it may read it.
    `weights` are those that the step addresses. `config` becomes the result's config.json: change it in place.
    `scratch` is an empty folder for memory maps, removed afterwards. `recipe` is the whole one. `origins`: see
    `Manifest`. `channels` is the record of those that the result has scaled: a step that scales some says so there
    before it puts the tensors. The result begins as a copy of the source.
    """

    def __init__(
        self,
        source: CheckpointInfo,
        *,
        base: CheckpointInfo,
        reference: CheckpointInfo,
        step: Step,
        index: int,
        weights: Sequence[Weight],
        calibration: CalibrationText | None,
        other: Path | None = None,
        reader: TensorReader,
        base_reader: TensorReader,
        scratch: Path,
        before: dict[str, TensorChange],
        progress: Progress,
        check_cancelled: CheckCancelled,
        recipe: Recipe = (),
        origins: dict[str, str | None] | None = None,
    ) -> None:
        self.source, self.base, self.reference = source, base, reference
        self.step, self.index, self.weights = step, index, tuple(weights)
        self._calibration = calibration
        self._other = other
        self.scratch, self.recipe = scratch, recipe
        self.config: dict[str, Any] = dict(source.config)
        self.channels, self._channels_before, self._base_channels = map(Channels.of, (source, source, base))
        self.warnings: list[Notice] = []
        self.figures: dict[str, float] = {}
        self.changes: dict[str, TensorChange] = dict(before)
        self.progress, self.check_cancelled = progress, check_cancelled
        self._reader, self._base_reader, self._before = reader, base_reader, before
        self._origins_before = origins or {}
        self.origins: dict[str, str | None] = dict(self._origins_before)
        # output name → the source's tensor that is or stood there
        self._came = {name: name for name in source.tensors}
        self._made = scratch / "made"
        self._made.mkdir()
        # output name → ("source", name there) or ("made", file)
        self._plan: dict[str, tuple[str, str]] = {
            name: ("source", name) for name in source.tensors if not (source.tied and name == "lm_head.weight")
        }
        self._planned: dict[str, Planned] = {}
        self._count = 0

    @property
    def calibration(self) -> CalibrationText:
        """The text of a step that looks at activations. Raises ValueError for any other step."""
        if self._calibration is None:
            raise ValueError("the step looks at activations and was given no text")
        return self._calibration

    @property
    def other(self) -> Path:
        """The folder of the adapter, or of the other model, that the step takes."""
        if self._other is None:
            raise ValueError("the step takes nothing beside the checkpoint")
        return self._other

    @property
    def device(self) -> torch.device:
        """What the step computes on: tensors that it reads are there, and new ones are made there."""
        return self._reader.device

    def read(self, name: str) -> torch.Tensor:
        """A tensor of the source. Raises CHECKPOINT_NOT_FINITE."""
        return self._reader.read(name)

    def came_from(self, name: str) -> str | None:
        """What the source's tensor was called before all steps; None if there was none of it, or of its shape."""
        return self._origins_before.get(name, name)

    def bits(self, name: str) -> float | None:
        """Bits per weight of the source's tensor as the steps before left it; None if none set any, or as parts."""
        known = self._before.get(name)
        return None if known is None or known.in_parts else known.bits_per_weight

    def put(
        self,
        name: str,
        tensor: torch.Tensor,
        *,
        bits: float | None = None,
        sparsity: float | None = None,
        inserted: bool = False,
    ) -> None:
        """Makes `tensor` the result's tensor of that name, in the dtype it comes in.

        A matrix enters the manifest with `bits` bits per weight and the share of zeros `sparsity` that was asked for.
        Without `bits` it takes what it took before: a step that moves weights off the grid that they may be on says
        `width_of` the tensor. `inserted`: the unmodified model has none that it could be compared with. Raises
        CHECKPOINT_NOT_FINITE if it holds NaN or infinity.
        """
        check_finite(name, tensor)
        known = self.source.tensors.get(name)
        if inserted or (known is not None and known.shape != tuple(tensor.shape)):
            self.origins[name] = None
        self.channels.reshaped(name, tuple(tensor.shape))
        tensor = tensor.detach().contiguous()
        if tensor.ndim >= 2:
            self.changes[name] = self._change(name, tensor, bits, sparsity)
        self._store(name, tensor)

    def put_packed(
        self, module: str, parts: dict[str, torch.Tensor], dequantized: torch.Tensor, *, bits: float
    ) -> None:
        """Replaces `module`.weight by the tensors that it is packed into (`weight_packed`, `weight_scale`, …).

        `dequantized` is the weight that they stand for, for the manifest alone.
        """
        name = f"{module}.weight"
        self.changes[name] = self._change(name, dequantized, bits, None)
        self._plan.pop(name, None)
        self._planned.pop(name, None)
        for part, tensor in parts.items():
            self._store(f"{module}.{part}", tensor.detach().contiguous())

    def keep(self, name: str, *, of: str) -> None:
        """The result's `name` is the source's tensor `of`, unchanged; what earlier steps did to it goes with it."""
        if of not in self.source.tensors:
            raise KeyError(of)
        self._plan[name] = ("source", of)
        self._planned.pop(name, None)
        self._came[name] = of
        self.origins[name] = self._origins_before.get(of, of)
        self.channels.copy(name, self._channels_before, of)
        if of in self._before:
            self.changes[name] = self._before[of].model_copy(update={"name": name})

    def drop(self, name: str) -> None:
        """The result has no such tensor."""
        self._plan.pop(name, None)
        self._planned.pop(name, None)
        self.changes.pop(name, None)
        self.origins.pop(name, None)
        self._came.pop(name, None)
        self.channels.forget(name)

    def clear(self) -> None:
        """The result has no tensor yet: for steps that put the layers together again with `keep` and `put`."""
        self._plan.clear()
        self._planned.clear()
        self.changes.clear()
        self.origins.clear()
        self._came.clear()
        self.channels.forget()

    def warn(self, warning: Notice) -> None:
        """For the report: what the user should know of this result."""
        self.warnings.append(warning)

    def beside(self, name: str) -> Path:
        """A new folder of the result, for what is no weight of it (an adapter)."""
        folder = self.scratch.parent / name
        folder.mkdir()
        return folder

    def write(self, folder: Path, shard_bytes: int) -> None:
        """Writes the result's weights, and which of its channels are scaled."""
        self.channels.save(folder)
        planned = [self._planned.get(name) or self._of_source(name) for name in sorted(self._plan, key=natural_key)]
        shards = plan_shards(planned, shard_bytes=shard_bytes)
        order = [one.name for shard in shards for one in shard]
        write_shards(folder, shards, self._tensors(order))

    def _tensors(self, order: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for done, name in enumerate(order):
            self.check_cancelled()
            self.progress("write", done, len(order))
            kind, place = self._plan[name]
            if kind == "source":
                yield name, self._reader.read(place)
            else:
                with safe_open(self._made / place, framework="pt") as file:
                    yield name, file.get_tensor("t")
                (self._made / place).unlink()  # or the disk would have to hold everything twice

    def _of_source(self, name: str) -> Planned:
        tensor = self.source.tensors[self._plan[name][1]]
        return Planned(name, tensor.dtype, tensor.shape)

    def _store(self, name: str, tensor: torch.Tensor) -> None:
        self._count += 1
        file = f"{self._count}.safetensors"
        _, old = self._plan.get(name, ("", ""))
        if name in self._planned:
            (self._made / old).unlink(missing_ok=True)
        planned = Planned("t", _NAMES[tensor.dtype], tuple(tensor.shape))
        with ShardWriter(self._made / file, [planned]) as writer:  # which says by an OSError that the disk is full
            writer.write("t", tensor)
        self._plan[name] = ("made", file)
        self._planned[name] = replace(planned, name=name)

    def _change(self, name: str, tensor: torch.Tensor, bits: float | None, sparsity: float | None) -> TensorChange:
        before = self._before.get(self._came.get(name, ""))
        return change_of(
            name,
            tensor,
            dtype=_NAMES[tensor.dtype],
            steps=(self.index,),
            original=self._meant_before(name, tensor),
            meaning=self.channels.meaning(name, tensor),
            bits=bits,
            sparsity=sparsity,
            before=before,
            in_parts=self._in_parts(bits, before, width_of(tensor)),
        )

    def _meant_before(self, name: str, stored: torch.Tensor) -> torch.Tensor | None:
        """What the unmodified model's tensor that this one was made of means; None if it has none of its
        shape."""
        origin = self.origins.get(name, name)
        known = self.base.tensors.get(origin) if origin else None
        if not origin or known is None or known.shape != tuple(stored.shape):
            return None
        return self._base_channels.meaning(origin, self._base_reader.read(origin))

    def _in_parts(self, bits: float | None, before: TensorChange | None, width: float) -> bool:
        if isinstance(self.step, RepairLowrank):  # the adapter beside the weight, where it has one
            return bits is not None and bits != (before.bits_per_weight if before else width)
        return isinstance(self.step, Truncated)


class WholeStep(Protocol):
    """A step that takes the checkpoint as a whole; constructed with the step's contract. `version` is part of the
    result's key: raise it when the same step gives other weights than before."""

    version: int

    def run(self, context: StepRun) -> None:
        """Runs the step through `context`. Raises `HemostatError`; calls `context.check_cancelled` at least once a
        second."""
