"""The head of a language model: the map from its final, normed hidden state to logits, as the engine applies it.

vLLM 0.32 computes logits = scale · cap · tanh((W·h + bias) / cap), with scale 1 and no cap for most architectures, over
the first `vocab_size` rows of W. Rows beyond are padding, rows beyond the tokenizer but below `vocab_size` count. The
numbers below (`KNOWN`) say where each architecture keeps scale and cap, and what its configuration class takes for
granted where config.json says nothing. An architecture that is not listed is taken as plain only if nothing in its
configuration hints at more. Either way the self-check compares this head with the engine's own logits before a number
of it is used.

Names: T positions, D hidden size, V vocabulary.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.packing import Targets
from workers.distributions.memory import in_large_pages

# Bytes of weights that are hashed or looked through at a time.
_SLICE_ROWS = 8192

_HEAD = "lm_head"
_EMBEDDINGS = (
    "model.embed_tokens",
    "model.decoder.embed_tokens",
    "transformer.wte",
    "gpt_neox.embed_in",
    "backbone.embeddings",
)
_NORMS = (
    "model.norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
    "model.embedding_norm",
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "backbone.norm_f",
)


@dataclass(frozen=True)
class Field:
    """A field of config.json and what its class takes where it is absent."""

    name: str
    default: float | None


@dataclass(frozen=True)
class Treatment:
    """What an architecture does to W·h: times `times`, divided by `over`, after a soft cap at `cap`."""

    times: Field | None = None
    over: Field | None = None
    cap: Field | None = None


_PLAIN = Treatment()
_LLAMA = Treatment(times=Field("logit_scale", 1.0))
_COHERE = Treatment(times=Field("logit_scale", 0.0625))
_GRANITE = Treatment(over=Field("logits_scaling", 1.0))

KNOWN: dict[str, Treatment] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "MixtralForCausalLM": _PLAIN,
    "Qwen2ForCausalLM": _PLAIN,
    "Qwen2MoeForCausalLM": _PLAIN,
    "Qwen3ForCausalLM": _PLAIN,
    "Qwen3MoeForCausalLM": _PLAIN,
    "OlmoeForCausalLM": _PLAIN,
    "GemmaForCausalLM": _PLAIN,
    "Gemma2ForCausalLM": Treatment(cap=Field("final_logit_softcapping", 30.0)),
    "Gemma3ForCausalLM": Treatment(cap=Field("final_logit_softcapping", None)),
    "CohereForCausalLM": _COHERE,
    "Cohere2ForCausalLM": _COHERE,
    "GraniteForCausalLM": Treatment(times=Field("logit_scale", 1.0), over=Field("logits_scaling", 1.0)),
    "GraniteMoeForCausalLM": _GRANITE,
    "GraniteMoeSharedForCausalLM": _GRANITE,
    "GraniteMoeHybridForCausalLM": _GRANITE,
    "FalconH1ForCausalLM": Treatment(times=Field("lm_head_multiplier", 1.0)),
}
# A field so named says that logits are more than W·h, unless its value is null, false or 1.
_TELLING = re.compile(
    r"logits?_(scal|mult|div)|logit_?soft|final_logit|lm_head_mult|output_mult|head_mult|^mup_|_mup$|^dim_model_base$"
    r"|^norm_head$|^head_dtype$",
    re.IGNORECASE,
)
_ATTENTION_ONLY = re.compile(r"attn|attention|router|embedding", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Head:
    """logits = scale · cap · tanh((W·h + bias) / cap); `softcap` None: no tanh.

    `weight_VD` is in the engine's dtype, `bias_V` float32 (or None). `fingerprint` is the SHA-256, hex, of everything
    that turns a last residual state into logits: final norm, weights, bias, scale, cap. `architecture` is the
    checkpoint's, for the self-check's key and messages.
    """

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None
    scale: float
    softcap: float | None
    fingerprint: str
    architecture: str = ""

    @property
    def vocabulary(self) -> int:
        """Number of tokens, V."""
        return self.weight_VD.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the hidden state, D."""
        return self.weight_VD.shape[1]

    @cached_property
    def largest_weight(self) -> float:
        """max |W|; not finite where a weight is not."""
        parts = torch.split(self.weight_VD, _SLICE_ROWS)
        return float(torch.stack([part.abs().amax().float() for part in parts]).amax())

    @cached_property
    def largest_bias(self) -> float:
        """max |bias|, 0 without one."""
        return 0.0 if self.bias_V is None else float(self.bias_V.abs().amax())

    def same_matrix(self, other: Self) -> bool:
        """Whether both multiply with the same weights, whatever else they do."""
        if self.weight_VD is other.weight_VD:
            return True
        return self.weight_VD.shape == other.weight_VD.shape and torch.equal(self.weight_VD, other.weight_VD)

    def on(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on a device, where its hidden states are, and with its matrix in `dtype`."""
        bias_V = None if self.bias_V is None else self.bias_V.to(device)
        return replace(self, weight_VD=self.weight_VD.to(device, dtype), bias_V=bias_V)

    def logits(self, hidden_TD: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states of any device, [T, V] float32, computed in float32 where the head is.

        Takes the matrix to float32 at each call if it is of another dtype (`on`). ValueError if the width differs.
        """
        if hidden_TD.ndim != 2 or hidden_TD.shape[1] != self.hidden_size:
            raise ValueError(f"hidden states of shape {tuple(hidden_TD.shape)} for a head of width {self.hidden_size}")
        hidden_TD = hidden_TD.to(self.weight_VD.device).float()
        logits_TV = torch.cat([hidden_TD @ part.float().T for part in torch.split(self.weight_VD, _SLICE_ROWS)], dim=1)
        if self.bias_V is not None:
            logits_TV += self.bias_V
        if self.softcap is not None:
            logits_TV = self.softcap * torch.tanh(logits_TV / self.softcap)
        return logits_TV * self.scale

    @classmethod
    def load(cls, checkpoint: Path, *, dtype: torch.dtype = torch.bfloat16) -> Self:
        """Read the head of a checkpoint folder, and nothing else of it; `dtype` is the one that the engine runs in.

        Raises what `app.models.checkpoint.inspect` raises, and `HemostatError`: HEAD_UNSUPPORTED if the head is of a
        kind that cannot be reproduced, CHECKPOINT_INCOMPLETE if it is missing, CHECKPOINT_SHAPE_MISMATCH if it
        has fewer rows than the vocabulary. CHECKPOINT_UNSUPPORTED if it is tied and the file has another one.
        """
        info = inspect(checkpoint)
        scale, softcap = _treatment(info)
        module = _head_module(info)
        weight_VD = _matrix(info, module)
        if info.tied and module != _HEAD and f"{_HEAD}.weight" in info.tensors:
            _check_second(info, weight_VD)
        weight_VD = weight_VD.to(dtype)
        if weight_VD.ndim != 2 or weight_VD.shape[0] < info.vocabulary or weight_VD.shape[1] != info.hidden_size:
            raise HemostatError(
                ErrorCode.CHECKPOINT_SHAPE_MISMATCH,
                f"{module}.weight has shape {tuple(weight_VD.shape)}, expected at least {info.vocabulary} rows of "
                f"{info.hidden_size}",
                hint="fetch the checkpoint again, or correct vocab_size and hidden_size in its config.json",
            )
        weight_VD = in_large_pages(weight_VD[: info.vocabulary])
        bias_V = None
        if f"{module}.bias" in info.tensors:
            # Rounded as the engine holds it.
            bias_V = _tensor(info, f"{module}.bias").to(dtype).float()[: info.vocabulary].contiguous()
        norm = _final_norm(info)
        digest = hashlib.sha256(
            f"hemostat.head/1 {info.vocabulary} {info.hidden_size} {scale!r} {softcap!r}\n".encode()
        )
        for name in norm:
            _update(digest, name, _tensor(info, name).to(dtype))
        _update(digest, "weight", weight_VD)
        if bias_V is not None:
            _update(digest, "bias", bias_V)
        return cls(weight_VD, bias_V, scale, softcap, digest.hexdigest(), info.architecture)


def pair_on(
    reference: Head, candidate: Head, device: str | torch.device, dtype: torch.dtype | None = None
) -> tuple[Head, Head]:
    """Both on a device (`Head.on`), with one matrix there if theirs are equal."""
    placed = reference.on(device, dtype)
    if reference.same_matrix(candidate):
        candidate = replace(candidate, weight_VD=placed.weight_VD)
    return placed, candidate.on(device, dtype)


def _unsupported(info: CheckpointInfo, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.HEAD_UNSUPPORTED,
        f"the head of {info.path.name} ({info.architecture}) cannot be reproduced: {why}",
        hint="use a model whose head is one matrix, with at most a bias, a scale or a soft cap",
    )


def _treatment(info: CheckpointInfo) -> tuple[float, float | None]:
    """(scale, cap) of an architecture; HEAD_UNSUPPORTED if an unlisted one hints at something."""
    treatment = KNOWN.get(info.architecture)
    if treatment is None:
        for name, value in info.config.items():
            neutral = value is None or value is False or (value == 1 and value is not True)
            if _TELLING.search(name) and not _ATTENTION_ONLY.search(name) and not neutral:
                raise _unsupported(info, f"config.json says {name} = {value!r}, and what that does here is not known")
        treatment = _PLAIN
    times = _number(info, treatment.times)
    over = _number(info, treatment.over)
    cap = _number(info, treatment.cap)
    if times == 0 or over == 0 or (cap is not None and cap <= 0):
        raise _unsupported(info, f"scale {times}, divisor {over}, soft cap {cap}")
    return (1.0 if times is None else times) / (1.0 if over is None else over), cap


def _number(info: CheckpointInfo, field: Field | None) -> float | None:
    if field is None:
        return None
    value: Any = info.config.get(field.name, field.default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"config.json: {field.name} is {value!r}, expected a number",
            hint="fetch the configuration again, or correct the field",
        )
    return float(value)


def _has_matrix(info: CheckpointInfo, module: str) -> bool:
    return f"{module}.weight" in info.tensors or f"{module}.weight_packed" in info.tensors


def _head_module(info: CheckpointInfo) -> str:
    """Name of the module whose weight is the head's: the embedding where they are tied, as the engine has it, whatever
    else is in the file."""
    wanted = _EMBEDDINGS if info.tied else (_HEAD,)
    for module in wanted:
        if _has_matrix(info, module):
            return module
    if info.tied:
        raise _unsupported(info, "it is tied to an embedding that has none of the known names")
    raise HemostatError(
        ErrorCode.CHECKPOINT_INCOMPLETE,
        f"{info.path.name} has no {_HEAD}.weight and does not tie it to the embedding",
        hint="add the tensor, or set tie_word_embeddings in its config.json",
    )


def _check_second(info: CheckpointInfo, embedding_VD: torch.Tensor) -> None:
    """Raises CHECKPOINT_UNSUPPORTED unless the second matrix of a tied model is a copy of the first. Engines leave it
    out and transformers takes it, so there would be two models under one name."""
    if not torch.equal(embedding_VD, _tensor(info, f"{_HEAD}.weight")):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{info.path.name}: config.json ties the output matrix to the embedding, and {_HEAD}.weight is another one",
            hint=f"if the model was trained untied, set tie_word_embeddings to false; else remove {_HEAD}.weight",
        )


def _final_norm(info: CheckpointInfo) -> tuple[str, ...]:
    for module in _NORMS:
        found = tuple(name for part in ("weight", "bias") if (name := f"{module}.{part}") in info.tensors)
        if found:
            return found
    raise _unsupported(info, "its final norm has none of the known names")


def _tensor(info: CheckpointInfo, name: str) -> torch.Tensor:
    with safe_open(str(info.path / info.tensors[name].file), framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _matrix(info: CheckpointInfo, module: str) -> torch.Tensor:
    """The weight of a module, dequantized where it is packed."""
    name = f"{module}.weight"
    packed = name not in info.tensors or f"{name}_scale" in info.tensors
    if not packed:
        weight = _tensor(info, name)
        if not weight.dtype.is_floating_point:
            raise _unsupported(info, f"{name} holds {weight.dtype} and has no scale")
        return weight
    return _dequantized(info, module)


def _dequantized(info: CheckpointInfo, module: str) -> torch.Tensor:
    """A compressed-tensors weight as floats. HEAD_UNSUPPORTED if activations are quantized too: such a head is no
    linear map of the hidden state."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig.model_validate(info.quantization)
    groups = config.config_groups.values()
    schemes = (
        [] if Targets(config.ignore).name(module) else [one for one in groups if Targets(one.targets).name(module)]
    )
    if len(schemes) != 1:
        raise _unsupported(info, f"{len(schemes)} groups of its quantization_config name {module}")
    scheme = schemes[0]
    if scheme.input_activations is not None:
        raise _unsupported(info, "it quantizes the hidden state too")
    form = scheme.format or config.format
    prefix = f"{module}."
    state = {
        name.removeprefix(prefix): _tensor(info, name) for name in info.tensors if name.startswith(f"{prefix}weight")
    }
    try:
        weight: torch.Tensor = BaseCompressor.get_value_from_registry(form).decompress(state, scheme)["weight"]
    except (KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        raise _unsupported(info, f"its packed form {form} cannot be undone: {error}") from error
    return weight


def _update(digest: "hashlib._Hash", name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    for part in torch.split(tensor.contiguous(), _SLICE_ROWS):
        digest.update(part.view(torch.uint8).numpy().data)
