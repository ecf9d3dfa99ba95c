"""A model without weights, from a checkpoint's configuration: its blocks are given theirs one at a time.

Shapes: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from app.contracts.blocks import SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS
from workers.products import widen
from workers.surgery.blockwise.attention import capped, implementation
from workers.surgery.blockwise.served import as_served, is_capped
from workers.surgery.callbacks import CheckCancelled, never_cancelled

Read = Callable[[str], torch.Tensor]
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_PLAIN = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


class Skeleton:
    """transformers' modules of one checkpoint on the meta device; `read` gives a tensor by its name. They run on
    `device`, in `dtype`: without one, in what most of the weights are in.

    Raises `HemostatError(RECIPE_NOT_APPLICABLE)` for a packed checkpoint, one with block corrections, an architecture
    whose layout is not known, and a mixture of experts. The library holds experts in another form than the checkpoint
    does: anyone who reads them in that form (`mixtures.fused`) says `mixtures`.
    """

    def __init__(
        self,
        info: CheckpointInfo,
        read: Read,
        *,
        device: str | torch.device,
        dtype: torch.dtype | None = None,
        mixtures: bool = False,
    ) -> None:
        layout = LAYOUTS.get(info.architecture)
        corrected = SECTION in info.config
        if corrected or info.quantization is not None or layout is None or (layout.mixture and not mixtures):
            why = "is packed" if info.quantization is not None else f"is a {info.architecture}"
            why = "has block corrections" if corrected else why
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"methods that read activations run the model block by block, but this checkpoint {why}",
                hint="they take plain checkpoints of dense models: "
                + ", ".join(sorted(name for name, known in LAYOUTS.items() if not known.mixture)),
            )
        dtype = dtype or _PLAIN[info.scheme]
        self.info, self.dtype, self.read, self.device = info, dtype, read, torch.device(device)
        config = as_served(AutoConfig.for_model(**{**info.config, "dtype": dtype}), info)
        config._attn_implementation = (capped if is_capped(config) else implementation)(dtype)
        if layout.mixture:
            config._experts_implementation = "eager"
        # What is no weight, such as rotary frequencies, is made on the host and the same on every device.
        with torch.device("cpu"), init_empty_weights():
            self.model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
        widen(self.model)
        self.model.eval()
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device))
        self.layers: nn.ModuleList = self.model.model.layers
        self.config = config

    def load(self, module: nn.Module, prefix: str) -> None:
        """Gives a module its weights; `prefix` is its path with a dot at the end."""
        state = {name: self.read(prefix + name).to(self.device, self.dtype) for name, _ in module.named_parameters()}
        module.load_state_dict(state, strict=False, assign=True)
        module.requires_grad_(False)

    def block(self, index: int) -> nn.Module:
        """A decoder layer with its weights, until `release`."""
        layer = self.layers[index]
        self.load(layer, f"model.layers.{index}.")
        return layer

    def whole(self, check_cancelled: CheckCancelled = never_cancelled) -> None:
        """All weights at once."""
        for index in range(len(self.layers)):
            check_cancelled()
            self.block(index)
        self.load(self.model.model.embed_tokens, "model.embed_tokens.")
        self.head()

    def release(self, index: int) -> None:
        """Forgets a layer's weights."""
        _forget(self.layers[index])

    def release_embedding(self) -> None:
        """Forgets the embedding, which `calls` loads."""
        _forget(self.model.model.embed_tokens)

    @torch.no_grad()
    def calls(self, tokens_NL: torch.Tensor) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        """(N, L, D) what enters the first block, and the keyword arguments of each block. These are masks and rotary
        positions, the same for every batch of N windows of L tokens."""
        if self.model.model.embed_tokens.weight.is_meta:
            self.load(self.model.model.embed_tokens, "model.embed_tokens.")
        catchers = nn.ModuleList(_Catcher(layer) for layer in self.layers)
        norm = self.model.model.norm
        self.model.model.layers, self.model.model.norm = catchers, nn.Identity()
        try:
            self.model.model(input_ids=tokens_NL.to(self.device), use_cache=False)
        finally:
            self.model.model.layers, self.model.model.norm = self.layers, norm
        first = catchers[0]
        assert isinstance(first, _Catcher)  # noqa: S101 - made above
        assert first.entered is not None  # noqa: S101 - the call went through it
        return first.entered, [catcher.kwargs for catcher in catchers if isinstance(catcher, _Catcher)]

    def norm(self) -> nn.Module:
        """The final norm with its weights."""
        if self.model.model.norm.weight.is_meta:
            self.load(self.model.model.norm, "model.norm.")
        found: nn.Module = self.model.model.norm
        return found

    def head(self) -> tuple[nn.Module, nn.Module]:
        """(final norm, output matrix) with their weights."""
        if self.model.lm_head.weight.is_meta:
            name = "model.embed_tokens." if self.info.tied else "lm_head."
            self.load(self.model.lm_head, name)
        return self.norm(), self.model.lm_head


def _forget(module: nn.Module) -> None:
    """Drops a module's weights. What is no weight stays: nothing gives it back, such as the scale of Gemma's
    embedding."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(weight.to("meta"), requires_grad=False))


class _Catcher(nn.Module):
    """Means a block: keeps what it is called with, and lets the hidden states through."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.entered: torch.Tensor | None = None
        self.kwargs: dict[str, Any] = {}
        for name in ("attention_type", "layer_type"):  # what some models ask a block before they call it
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))

    def forward(self, hidden_NLD: torch.Tensor, *_: Any, **kwargs: Any) -> torch.Tensor:
        """The hidden states, unchanged."""
        self.entered = hidden_NLD
        kwargs.pop("past_key_values", None)
        kwargs.pop("past_key_value", None)
        kwargs.pop("hidden_states", None)
        self.kwargs = kwargs
        return hidden_NLD
