"""Mixtures of experts: how many experts a token, and routers."""

from dataclasses import replace

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_layers, weights_of
from app.recipes.base import Step
from app.recipes.moe import MoeTopk

EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
# The gate of a shared expert is no router: it chooses nothing.
_ROUTERS = frozenset({"gate", "router"})


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The routers of the layers named; none for `moe.topk`, which changes the configuration.

    Raises RECIPE_NOT_APPLICABLE for a model without experts, for more experts a token than there are, and for modules.
    """
    experts = experts_of(info)
    if experts is None:
        raise not_applicable(
            f"{info.architecture} is not a mixture of experts",
            hint="give a model with experts, such as Mixtral or Qwen3-MoE",
            pointer=pointer,
        )
    if step.modules is not None:
        raise not_applicable(
            f"{step.type} acts on routers and takes no modules",
            hint="leave modules out",
            pointer=f"{pointer}/modules",
        )
    if isinstance(step, MoeTopk):
        if step.experts > experts:
            raise not_applicable(
                f"a token cannot go to {step.experts} experts: the model has {experts}",
                hint=f"give a number from 1 to {experts}",
                pointer=f"{pointer}/experts",
            )
        if step.layers is not None:
            raise not_applicable(
                "an engine has one number of experts per token for all layers",
                hint="leave layers out",
                pointer=f"{pointer}/layers",
            )
        return []
    check_layers(info, step, pointer)
    routers = [
        weight
        for weight in weights_of(info)
        if weight.module.rpartition(".")[2] in _ROUTERS and (step.layers is None or weight.layer in set(step.layers))
    ]
    if not routers:
        raise not_applicable(
            "no named layer has a router",
            hint="name layers with experts, or leave layers out",
            pointer=f"{pointer}/layers",
        )
    return routers


def after(info: CheckpointInfo, step: Step) -> CheckpointInfo:
    """The same tensors."""
    if isinstance(step, MoeTopk):
        return replace(info, config=info.config | {"num_experts_per_tok": step.experts})
    return info


def experts_of(info: CheckpointInfo) -> int | None:
    """How many experts the configuration speaks of."""
    return next((int(info.config[name]) for name in EXPERT_COUNTS if info.config.get(name)), None)
