"""Models made deeper or wider.

- *Duplicate*: a run of layers is twice, one copy behind the other: depth up-scaling as SOLAR does it (Kim et al.
  2023, arXiv 2312.15166), without its training.
- *Identity*: behind each layer a copy whose output projections are zero, so that it adds nothing to the residual
  stream: LLaMA Pro's block expansion (Wu et al. 2024, arXiv 2401.02415). The function is kept exactly.
- *Interpolate*: behind each layer a new one whose weights lie between its and the next one's. Where channels were
  scaled, the next one's are taken to the frame of the layer first. Ours.
- *Width*: every head (query group and its keys and values) and every inner MLP channel is several times, and the
  columns that read them are divided by that number: Net2Net's widening (Chen et al. 2016, arXiv 1511.05641) applied to
  heads and gated MLPs. The function is kept up to rounding; copies may get noise, which breaks their symmetry and the
  function with it.

Shapes: O output dimension, I input dimension, H heads, d dimension of a head.
"""

import torch

from app.models.layer_names import in_layer
from app.models.shapes import LAYOUTS, dimension
from app.models.steps.extend import OUTPUTS, inserted, order_of, widened
from app.recipes.extend import ExtendDuplicate, ExtendIdentity, ExtendInterpolate, ExtendWidth
from workers.surgery.channels import Channels
from workers.surgery.relayer import relayer
from workers.surgery.step_run import StepRun
from workers.surgery.width import width_of


class Duplicate:
    """`extend.duplicate`."""

    version = 1

    def __init__(self, step: ExtendDuplicate) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Without reading a weight."""
        order = order_of(context.source, self._step)
        relayer(context, order)
        context.figures["layers"] = len(order)


class Identity:
    """`extend.identity`."""

    version = 1

    def __init__(self, step: ExtendIdentity) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Copies, then zeros what they write into the residual stream. A bias there is zeroed too."""
        order = order_of(context.source, self._step)
        relayer(context, order)
        for number, layer in inserted(context.source, self._step).items():
            for name in context.source.tensors:
                place = in_layer(name)
                if place is not None and place.layer == layer and name.split(".")[-2] in OUTPUTS:
                    context.put(place.numbered(number), torch.zeros_like(context.read(name)), inserted=True)
        context.figures["layers"] = len(order)


class Interpolate:
    """`extend.interpolate`."""

    version = 2

    def __init__(self, step: ExtendInterpolate) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """(1 − weight) · this layer + weight · the next one, in float32."""
        order = order_of(context.source, self._step)
        frames = Channels.of(context.source)
        relayer(context, order)
        for number, layer in inserted(context.source, self._step).items():
            for name in context.source.tensors:
                place = in_layer(name)
                if place is None or place.layer != layer:
                    continue
                context.check_cancelled()
                this, other = context.read(name), place.numbered(layer + 1)
                following = frames.moved(name, frames.meaning(other, context.read(other)))
                mixed = torch.lerp(this.to(torch.float32), following.to(torch.float32), self._step.weight)
                context.put(place.numbered(number), mixed.to(this.dtype), bits=width_of(this), inserted=True)
        context.figures["layers"] = len(order)


class Width:
    """`extend.width`."""

    version = 2

    def __init__(self, step: ExtendWidth) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every layer's projections."""
        config = context.source.config
        head_dim = dimension(
            config,
            "head_dim",
            LAYOUTS[context.source.architecture].head_dim
            or dimension(config, "hidden_size") // dimension(config, "num_attention_heads"),
        )
        generator = torch.Generator().manual_seed(self._step.seed % 2**63)
        names = [name for name in context.source.tensors if in_layer(name) is not None]
        for done, name in enumerate(names):
            context.check_cancelled()
            context.progress("widen", done, len(names))
            kind = name.split(".")[-2]
            if kind in {"q_proj", "k_proj", "v_proj"} and self._step.heads > 1:
                self._put_rows(context, name, self._step.heads, head_dim, generator)
            elif kind in {"gate_proj", "up_proj"} and self._step.channels > 1:
                self._put_rows(context, name, self._step.channels, 1, generator)
            elif kind == "o_proj" and name.endswith(".weight") and self._step.heads > 1:
                self._put_columns(context, name, self._step.heads, head_dim)
            elif kind == "down_proj" and name.endswith(".weight") and self._step.channels > 1:
                self._put_columns(context, name, self._step.channels, 1)
        context.config |= widened(context.source, self._step)

    def _put_rows(self, context: StepRun, name: str, times: int, size: int, generator: torch.Generator) -> None:
        tensor = context.read(name)
        # noise takes the copies off any grid that a step before put the weights on
        bits = width_of(tensor) if self._step.noise else None
        context.channels.take(name, outputs=_copies(len(tensor), times, size))
        context.put(name, self._rows(tensor, times, size, generator), bits=bits)

    def _rows(self, tensor: torch.Tensor, times: int, size: int, generator: torch.Generator) -> torch.Tensor:
        """Each run of `size` rows `times` times in a row; all but the first with noise."""
        runs = tensor.reshape(-1, size, *tensor.shape[1:])
        copies = runs.unsqueeze(1).repeat_interleave(times, dim=1)
        if self._step.noise:
            scale = self._step.noise * runs.to(torch.float32).std()
            noise = torch.randn(copies[:, 1:].shape, generator=generator, device="cpu").to(tensor.device) * scale
            copies[:, 1:] += noise.to(copies.dtype)
        return copies.reshape(-1, *tensor.shape[1:])

    def _put_columns(self, context: StepRun, name: str, times: int, size: int) -> None:
        weight_OI = context.read(name)
        context.channels.take(name, inputs=_copies(weight_OI.shape[1], times, size))
        context.put(name, _columns(weight_OI, times, size))


def _copies(length: int, times: int, size: int) -> torch.Tensor:
    """Old number of each of so many rows or columns, runs of `size` standing `times` times in a row."""
    return torch.arange(length).reshape(-1, 1, size).repeat_interleave(times, dim=1).flatten()


def _columns(weight_OI: torch.Tensor, times: int, size: int) -> torch.Tensor:
    """Each run of `size` columns `times` times in a row, divided by that number (exact where it is a power of two)."""
    runs = weight_OI.reshape(weight_OI.shape[0], -1, 1, size)
    return (runs / times).repeat_interleave(times, dim=2).reshape(weight_OI.shape[0], -1)
