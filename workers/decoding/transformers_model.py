"""A checkpoint run by transformers, with keys and values kept: what decoders need that vLLM does not give.

Names: R rows, L tokens of a prompt (W the longest), D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from app.contracts.blocks import ENGINE_SECTIONS
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from workers.decoding.model import Step, check_logits
from workers.engine.finite import check_finite
from workers.engine.launch import never
from workers.engine.mending import unpack_in_linear_time
from workers.products import widen
from workers.surgery.blockwise.attention import capped
from workers.surgery.blockwise.served import as_served, is_capped

# A job is cancelled between two forward passes, so a prompt is read in parts of so many tokens over all rows.
STEP_TOKENS: Final = 1024


class TransformersModel:
    """A causal language model in memory; `dtype` is what it runs in, `step_tokens` how many tokens of prompts it reads
    at once. `check_cancelled` is called before every forward pass and may raise.

    Raises what `inspect` raises, CHECKPOINT_NOT_FINITE, and CHECKPOINT_UNSUPPORTED if transformers cannot load it.
    Raises RECIPE_NOT_APPLICABLE if a checkpoint asks its engine for more than its weights, which transformers would
    leave out without a word. Raises NONFINITE_LOGITS when it runs.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: str,
        step_tokens: int = STEP_TOKENS,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.info = inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self.step_tokens = step_tokens
        self.check_cancelled = check_cancelled
        self.device = torch.device(device)
        if ENGINE_SECTIONS & self.info.config.keys():
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                "beam search, contrastive search, FSD, eta, typical and mirostat run in transformers, which neither "
                "simulates quantized activations, keys or values nor corrects blocks",
                hint="take the decoders greedy, temperature, top_p, top_k and min_p, which run in vLLM",
            )
        check_finite(self.info, check_cancelled)
        self.model = _load(self.info, dtype).to(self.device).eval()
        widen(self.model)

    @property
    def vocabulary(self) -> int:
        """Number of tokens, V."""
        return self.info.vocabulary

    def open(self, prompts: Sequence[Sequence[int]]) -> TransformersSession:
        """Reads the prompts. Raises VOCABULARY_MISMATCH for an empty one or a token that the model has not."""
        for tokens in prompts:
            if not tokens or not 0 <= min(tokens) <= max(tokens) < self.vocabulary:
                raise HemostatError(
                    ErrorCode.VOCABULARY_MISMATCH,
                    f"a prompt is empty or holds a token outside the model's {self.vocabulary}",
                    hint="the tokenizer does not belong to the model; correct it in models.toml",
                )
        return TransformersSession(self, prompts)


class TransformersSession:
    """Rows of text of one length: shorter prompts have masked places before them."""

    def __init__(self, model: TransformersModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.model.config)
        longest = max(len(tokens) for tokens in prompts)
        pads = [longest - len(tokens) for tokens in prompts]
        ids_RW = torch.tensor([[0] * pad + list(tokens) for pad, tokens in zip(pads, prompts, strict=True)])
        self._seen_RW = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=model.device)
        self._length_R = -torch.tensor(pads, device=model.device)
        width = max(1, model.step_tokens // len(prompts))
        parts = []
        for start in range(0, longest, width):
            chunk_RW = ids_RW[:, start : start + width].to(model.device)
            hidden_RWD, self._step = self._forward(chunk_RW, self._seen_RW[:, : start + chunk_RW.shape[1]])
            parts.append(hidden_RWD)
        check_logits(self._step.logits_RV, model.info)  # not before: places before a prompt may hold anything
        hidden_RWD = torch.cat(parts, dim=1)
        self._prompt_hidden = [hidden_WD[pad:].float() for hidden_WD, pad in zip(hidden_RWD, pads, strict=True)]

    @property
    def step(self) -> Step:
        """What follows the rows as they are."""
        return self._step

    @property
    def prompt_hidden(self) -> Sequence[torch.Tensor]:
        """(L, D) float32 of each prompt's tokens."""
        return self._prompt_hidden

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Step:
        """Row r becomes the row `parents[r]` with `tokens[r]` behind it."""
        self._select(parents)
        ids_R1 = torch.tensor(tokens, device=self._model.device)[:, None]
        self._seen_RW = torch.cat([self._seen_RW, torch.ones_like(ids_R1)], dim=1)
        _, self._step = self._forward(ids_R1, self._seen_RW)
        check_logits(self._step.logits_RV, self._model.info)
        return self._step

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows alone."""
        self._select(rows)
        index = torch.tensor(rows, device=self._model.device)
        self._step = Step(self._step.logits_RV[index], self._step.hidden_RD[index])

    def _select(self, rows: Sequence[int]) -> None:
        if list(rows) == list(range(len(self._length_R))):
            return
        index = torch.tensor(rows, device=self._model.device)
        self._cache.reorder_cache(cast(torch.LongTensor, index))
        self._seen_RW, self._length_R = self._seen_RW[index], self._length_R[index]

    @torch.inference_mode()
    def _forward(self, ids_RW: torch.Tensor, seen_RW: torch.Tensor) -> tuple[torch.Tensor, Step]:
        """(R, W, D) hidden states of the tokens, and what follows the last one."""
        self._model.check_cancelled()
        at_RW = self._length_R[:, None] + torch.arange(ids_RW.shape[1], device=ids_RW.device)
        self._length_R = self._length_R + ids_RW.shape[1]
        caught: list[torch.Tensor] = []
        hook = self._model.model.base_model.register_forward_hook(
            lambda _module, _args, output: caught.append(output.last_hidden_state)
        )
        try:
            output = self._model.model(
                input_ids=ids_RW,
                attention_mask=seen_RW,
                position_ids=at_RW.clamp(min=0),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        finally:
            hook.remove()
        hidden_RWD = caught[0]
        logits_RV = output.logits[:, -1, : self._model.vocabulary].float()
        return hidden_RWD, Step(logits_RV, hidden_RWD[:, -1].float())


def _load(info: CheckpointInfo, dtype: torch.dtype) -> Any:
    config = as_served(AutoConfig.from_pretrained(info.path, local_files_only=True), info)
    if info.quantization is not None:
        # Weights are unpacked once; activations that the packing quantizes are quantized on the way, as it says.
        unpack_in_linear_time()
        config.quantization_config = {**info.quantization, "dequantize": True}
    attention = capped(dtype) if is_capped(config) else "sdpa"
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return AutoModelForCausalLM.from_pretrained(
            info.path,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
        )
    except (ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"transformers cannot load {info.path.name} ({info.architecture}, {info.scheme}): {type(error).__name__}",
            hint="take the decoders greedy, temperature, top_p, top_k and min_p, which run in vLLM",
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
