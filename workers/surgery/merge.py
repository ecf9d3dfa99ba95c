"""Other people's changes put into the weights, one tensor at a time, in float32.

- *LoRA* (Hu et al. 2021, arXiv 2106.09685): W + strength · (alpha / r) · B A, with PEFT's files, its rank-stabilized
  scale alpha / √r, and its patterns of ranks and alphas.
- *Linear merge* (Wortsman et al. 2022, *Model soups*, arXiv 2203.05482, for two models and with a weight): (1 − weight)
· this + weight · other. Over every tensor that the step addresses, norms, biases and embeddings
  included where it names no layers or modules. 0 and 1 give the two models themselves.

Both bring numbers of another frame than a checkpoint whose channels were scaled (`channels`): they are taken to its own
first. An adapter that a repair trained on such a checkpoint brings the record of the frame that it is in.
"""

import torch
from safetensors import safe_open

from app.models.adapters import WEIGHTS, check_adapter, inspect_adapter
from app.models.checkpoint import inspect
from app.models.steps.others import check_other
from app.recipes.merge import AdapterLora, MergeLinear
from app.recipes.notices import StepNotice
from workers.surgery.channels import Channels, framed
from workers.surgery.reading import check_finite, open_tensors
from workers.surgery.step_run import StepRun
from workers.surgery.width import width_of


class Lora:
    """`adapter.lora`."""

    version = 3

    def __init__(self, step: AdapterLora) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every weight that the adapter changes and the step addresses."""
        adapter = inspect_adapter(context.other)
        check_adapter(adapter, context.source)
        everywhere = self._step.layers is None and self._step.modules is None
        addressed = {weight.name for weight in context.weights}
        chosen = [target for target in adapter.targets.values() if everywhere or target.weight in addressed]
        frame = Channels.load(adapter.path)
        with safe_open(adapter.path / WEIGHTS, framework="pt") as file:
            for done, target in enumerate(chosen):
                context.check_cancelled()
                context.progress("adapter", done, len(chosen))
                a_RI, b_OR = (file.get_tensor(name).to(context.device) for name in (target.a, target.b))
                check_finite(target.a, a_RI)
                check_finite(target.b, b_OR)
                weight_OI = context.read(target.weight)
                change_OI = b_OR.to(torch.float32) @ a_RI.to(torch.float32)
                if not frame.alike(target.weight, context.channels):
                    change_OI = context.channels.moved(target.weight, frame.meaning(target.weight, change_OI))
                merged_OI = weight_OI.to(torch.float32) + self._step.strength * target.scale * change_OI
                context.put(target.weight, merged_OI.to(weight_OI.dtype), bits=width_of(weight_OI))
        context.figures["weights changed"] = float(len(chosen))
        if len(chosen) < len(adapter.targets):
            context.warn(StepNotice.WEIGHTS_NOT_ADDRESSED(weights=len(adapter.targets) - len(chosen)))


class Linear:
    """`merge.linear`."""

    version = 2

    def __init__(self, step: MergeLinear) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Every tensor, or those that layers and modules name."""
        other = inspect(context.other)
        check_other(self._step, context.source, context.other)
        everywhere = self._step.layers is None and self._step.modules is None
        names = list(context.source.tensors) if everywhere else [weight.name for weight in context.weights]
        names = [
            name for name in names if name in other.tensors and not (context.source.tied and name == "lm_head.weight")
        ]
        with open_tensors(other, context.device) as reader:
            read = framed(reader.read, Channels.of(other), context.channels)
            for done, name in enumerate(names):
                context.check_cancelled()
                context.progress("merge", done, len(names))
                this = context.read(name)
                mixed = torch.lerp(this.to(torch.float32), read(name).to(torch.float32), self._step.weight)
                context.put(name, mixed.to(this.dtype), bits=width_of(this))
        context.figures["tensors mixed"] = float(len(names))
