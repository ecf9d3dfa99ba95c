"""Steps that change one weight at a time: tensors go through one by one, each through all of the steps."""

from collections.abc import Iterator, Sequence
from math import inf

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, natural_key
from app.recipes.base import Step
from workers.surgery.account import change_of, norm
from workers.surgery.callbacks import CheckCancelled, Progress
from workers.surgery.channels import Channels
from workers.surgery.manifest import TensorChange
from workers.surgery.reading import TensorReader
from workers.surgery.safetensors_writer import DTYPES, Planned
from workers.surgery.steps import Runner, make_runner


class Streamed:
    """A run of neighbouring streamed steps over one checkpoint; `first` is the index of the first in the recipe."""

    def __init__(
        self,
        source: CheckpointInfo,
        base: CheckpointInfo,
        steps: Sequence[Step],
        first: int,
        weights: Sequence[Sequence[Weight]],
        *,
        before: dict[str, TensorChange],
        origins: dict[str, str | None],
        pointer: str,
        progress: Progress,
        check_cancelled: CheckCancelled,
    ) -> None:
        self._source, self._base = source, base
        self._channels, self._base_channels = Channels.of(source), Channels.of(base)
        self._runners: list[Runner] = [make_runner(step) for step in steps]
        self._addressed = [{weight.name: weight for weight in chosen} for chosen in weights]
        self._first, self._pointer, self._before, self._origins = first, pointer, before, origins
        self._progress, self._check_cancelled = progress, check_cancelled
        self.changes: dict[str, TensorChange] = dict(before)

    def planned(self) -> list[Planned]:
        """The tensors of the result, in the model's order. Raises CHECKPOINT_UNSUPPORTED for a dtype that cannot be
        copied."""
        tensors = self._source.tensors
        kept = [
            name for name in sorted(tensors, key=natural_key) if not (self._source.tied and name == "lm_head.weight")
        ]
        for name in kept:
            if tensors[name].dtype not in DTYPES:
                raise HemostatError(
                    ErrorCode.CHECKPOINT_UNSUPPORTED,
                    f"tensor {name} has the dtype {tensors[name].dtype}, which cannot be copied",
                    hint="convert the checkpoint to bf16",
                )
        return [Planned(name, tensors[name].dtype, tensors[name].shape) for name in kept]

    def tensors(
        self, reader: TensorReader, base_reader: TensorReader, order: list[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of the result in the order given, after the passes over the weights that the steps ask for."""
        self._look_first(reader, order)
        for done, name in enumerate(order):
            self._check_cancelled()
            self._progress("surgery", done, len(order))
            tensor = reader.read(name)
            if any(name in addressed for addressed in self._addressed):
                changed = self._through(tensor, name, before=len(self._runners))
                self.changes[name] = self._change(name, tensor, changed, base_reader)
                tensor = changed
            yield name, tensor
        self._progress("surgery", len(order), len(order))

    def _look_first(self, reader: TensorReader, order: list[str]) -> None:
        """Gives each step the passes over the weights that it asks for, the steps before it applied."""
        for index, runner in enumerate(self._runners):
            addressed = [name for name in order if name in self._addressed[index]]
            for visit in runner.passes():
                for done, name in enumerate(addressed):
                    self._check_cancelled()
                    self._progress("thresholds", done, len(addressed))
                    visit(name, self._through(reader.read(name), name, before=index))

    def _through(self, tensor: torch.Tensor, name: str, *, before: int) -> torch.Tensor:
        for runner, addressed in zip(self._runners[:before], self._addressed, strict=False):
            if name in addressed:
                tensor = runner.apply(name, tensor)
        return tensor

    def _change(
        self, name: str, tensor: torch.Tensor, changed: torch.Tensor, base_reader: TensorReader
    ) -> TensorChange:
        steps = [index for index, addressed in enumerate(self._addressed) if name in addressed]
        bits: float | None = None
        sparsity: float | None = None
        for index in steps:
            bits = self._runners[index].bits_per_weight(tensor.shape[1]) or bits
            asked = self._runners[index].nominal_sparsity()
            sparsity = sparsity if asked is None else asked
        if norm(changed, minus=tensor) == inf:
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"the weights of {name} are too large: their range is beyond float32",
                hint="check the checkpoint: trained weights are far below 1e38",
                pointer=f"{self._pointer}/{self._first + steps[0]}",
            )
        original: torch.Tensor | None = None
        origin = self._origins.get(name, name)
        known = self._base.tensors.get(origin) if origin else None
        if origin and known and known.shape == tuple(tensor.shape):
            read = tensor if self._base is self._source else base_reader.read(origin)
            original = self._base_channels.meaning(origin, read)
        return change_of(
            name,
            changed,
            dtype=self._source.tensors[name].dtype,
            steps=tuple(self._first + index for index in steps),
            original=original,
            meaning=self._channels.meaning(name, changed),
            bits=bits,
            sparsity=sparsity,
            before=self._before.get(name),
        )
