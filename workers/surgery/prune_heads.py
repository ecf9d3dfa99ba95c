"""Attention heads go, a group of query heads with its key and value head, and the checkpoint is really smaller.

LLM-Pruner (Ma et al., 2305.11627) removes coupled structures whole; from there that a group is the unit. The criterion
is ours: the mean square that a group adds to the attention's output, tr(W_g E[o oᵀ] W_gᵀ), with W_g the group's columns
of `o_proj` and o their inputs. Blocks are done one after the other, each seeing what the smaller ones before it give.
"""

import torch

from app.models.steps.prune import groups_to_go, heads_of, with_groups
from app.recipes.prune import PruneHeads
from workers.surgery.blockwise.observers import SecondMoment
from workers.surgery.prune_parts import energy_of_parts, kept_parts, spread, take_columns, take_rows, without_inputs
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of


class DropHeads:
    """`prune.heads`."""

    version = 2

    def __init__(self, step: PruneHeads) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every layer loses the same number of groups."""
        heads, gone = heads_of(context.source), groups_to_go(context.source, self._step)
        context.config.clear()
        context.config.update(with_groups(context.source, heads.groups - gone))
        lost = total = 0.0
        for block in walk_of(context).blocks():
            attention = f"{block.prefix}self_attn"
            name = f"{attention}.o_proj.weight"
            group = block.group_of(name)
            seen = SecondMoment(block.inputs(group))
            block.collect({group: seen})
            weight_OI = context.read(name)
            energy_P = energy_of_parts(weight_OI.float(), seen.mean(), heads.groups)
            kept_P = kept_parts(energy_P, gone)
            lost += float(energy_P.sum() - energy_P[kept_P].sum())
            total += float(energy_P.sum())
            query = spread(kept_P, heads.each * heads.size)
            shared = spread(kept_P, heads.size)
            if f"{attention}.qkv_proj.weight" in context.source.tensors:
                keys = heads.query * heads.size
                values = keys + heads.groups * heads.size
                take_rows(context, f"{attention}.qkv_proj", torch.cat([query, keys + shared, values + shared]))
            else:
                take_rows(context, f"{attention}.q_proj", query)
                take_rows(context, f"{attention}.k_proj", shared)
                take_rows(context, f"{attention}.v_proj", shared)
            take_columns(context, f"{attention}.o_proj", query)
            bias = f"{attention}.o_proj.bias"
            if context.config.get("attention_bias") and bias not in context.source.tensors:
                context.put(bias, torch.zeros(weight_OI.shape[0], dtype=weight_OI.dtype))
            linear = block.linears[name]
            linear.weight.data = without_inputs(linear.weight.data, query)
        context.figures["heads_per_layer"] = float((heads.groups - gone) * heads.each)
        context.figures["energy_share_lost"] = lost / total if total else 0.0
