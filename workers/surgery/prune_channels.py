"""Inner channels of the MLP go, and the checkpoint is really smaller.

A channel is a row of `gate_proj` and `up_proj` with its column of `down_proj`: coupled structures go whole (LLM-Pruner,
Ma et al., 2305.11627). The criterion is ours: the mean square that a channel adds to the MLP's output, ‖W_j‖²·E[h_j²],
with W_j its column of `down_proj` and h_j that column's input. It is the square of Wanda's score summed over a column.
Blocks are done one after the other, each seeing what the smaller ones before it give.
"""

import torch

from app.models.steps.prune import channels_of, channels_to_go, with_channels
from app.recipes.prune import PruneChannels
from workers.surgery.blockwise.observers import Channels
from workers.surgery.prune_parts import kept_parts, take_columns, take_rows, without_inputs
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of


class DropChannels:
    """`prune.channels`."""

    version = 2

    def __init__(self, step: PruneChannels) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every layer loses the same number of channels."""
        channels, gone = channels_of(context.source), channels_to_go(context.source, self._step)
        context.config.clear()
        context.config.update(with_channels(context.source.config, channels - gone))
        lost = total = 0.0
        for block in walk_of(context).blocks():
            mlp = f"{block.prefix}mlp"
            name = f"{mlp}.down_proj.weight"
            group = block.group_of(name)
            seen = Channels(block.inputs(group))
            block.collect({group: seen})
            norm_I = seen.norm()
            energy_I = context.read(name).float().square().sum(0) * norm_I.square()
            kept_I = kept_parts(energy_I, gone)
            lost += float(energy_I.sum() - energy_I[kept_I].sum())
            total += float(energy_I.sum())
            if f"{mlp}.gate_up_proj.weight" in context.source.tensors:
                take_rows(context, f"{mlp}.gate_up_proj", torch.cat([kept_I, channels + kept_I]))
            else:
                take_rows(context, f"{mlp}.gate_proj", kept_I)
                take_rows(context, f"{mlp}.up_proj", kept_I)
            take_columns(context, f"{mlp}.down_proj", kept_I)
            linear = block.linears[name]
            linear.weight.data = without_inputs(linear.weight.data, kept_I)
        context.figures["channels_per_layer"] = float(channels - gone)
        context.figures["energy_share_lost"] = lost / total if total else 0.0
