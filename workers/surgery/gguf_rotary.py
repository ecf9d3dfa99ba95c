"""How a GGUF file scales its rotary positions, which transformers' reader passes over.

llama.cpp's converter writes linear and YaRN scaling as metadata (`ARCHITECTURE.rope.scaling.*`); where these name a
factor and no type it is linear, and files of 2023 have that factor as `rope.scale_linear`. Llama 3's it writes as
a tensor, `rope_freqs.weight`: by its factors each frequency is divided, and the configuration that they come from is
not in the file. There is one: low and high frequency factors 1 and 4 over a context of 8,192, and a factor of 8 (Llama
3.1) or 32 (3.2); whether the factors are those is computed, by the formula of `_compute_llama3_parameters` in
transformers.

Names: F frequencies, half the dimension of a head.
"""

from collections.abc import Mapping
from math import pi
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.errors import ErrorCode, HemostatError

LOW: Final = 1.0
HIGH: Final = 4.0
TRAINED: Final = 8192  # tokens
# The factors are float32.
TOLERANCE: Final = 1e-4
_SCALING: Final = "rope.scaling."
_OLD: Final = "rope.scale_linear"
# Of the keys behind `rope.scaling.`, those that are carried over, and their names in a configuration.
_YARN: Final = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
_KNOWN: Final = {"type", "factor", "original_context_length", "finetuned", *_YARN}
_NEUTRAL: Final = {"attn_factor": 1.0, "yarn_attn_factor": 1.0}


def with_scaling(config: Mapping[str, Any], metadata: Mapping[str, Any], factors_F: ArrayLike | None) -> dict[str, Any]:
    """The configuration, as transformers read it from the file, with the scaling of its rotary positions.

    `metadata`: the file's, without the architecture in front; `factors_F`: `rope_freqs.weight` where the file has it.
    Raises `HemostatError(CHECKPOINT_UNSUPPORTED)` for a scaling that cannot be carried over.
    """
    told = {key.removeprefix(_SCALING): value for key, value in metadata.items() if key.startswith(_SCALING)}
    if "type" not in told:  # llama.cpp takes linear then, and for the factor the key of old files, too
        told["factor"] = told.get("factor", metadata.get(_OLD, 0.0))
        told["type"] = "linear" if told["factor"] not in {0.0, 1.0} else "none"
    kind = told["type"]
    divided = factors_F is not None and not np.allclose(np.asarray(factors_F), 1.0, atol=TOLERANCE)
    if kind == "none" and not divided:
        return dict(config)
    rotary = config.get("rope_parameters")
    if not isinstance(rotary, dict) or rotary.get("rope_type") != "default":
        raise _unsupported(f"they are scaled, and its configuration has {rotary!r}")
    if kind != "none" and divided:
        raise _unsupported(f"they are scaled twice, by {kind} and by rope_freqs.weight")
    scaling = _llama3(np.asarray(factors_F, dtype=np.float64), rotary) if divided else _of_metadata(kind, told)
    return {**config, "rope_parameters": {**rotary, **scaling}}


def _of_metadata(kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
    other = sorted(key for key in told.keys() - _KNOWN if told[key] != _NEUTRAL.get(key))
    if kind not in {"linear", "yarn"} or "factor" not in told or other:
        raise _unsupported(f"they are scaled by {kind}" + (f" with {', '.join(other)}" if other else ""))
    scaling: dict[str, Any] = {"rope_type": kind, "factor": float(told["factor"])}
    if kind == "yarn":
        if "original_context_length" not in told:
            raise _unsupported("they are scaled by yarn, without the context that it starts from")
        scaling["original_max_position_embeddings"] = int(told["original_context_length"])
        scaling |= {name: float(told[key]) for key, name in _YARN.items() if key in told}
    return scaling


def _llama3(factors_F: NDArray[np.float64], rotary: Mapping[str, Any]) -> dict[str, Any]:
    factor = float(factors_F.max())
    frequency_F = float(rotary["rope_theta"]) ** -(np.arange(factors_F.size) / factors_F.size)
    smooth_F = np.clip((TRAINED * frequency_F / (2 * pi) - LOW) / (HIGH - LOW), 0.0, 1.0)
    expected_F = 1.0 / ((1.0 - smooth_F) / factor + smooth_F)
    if not np.allclose(factors_F, expected_F, rtol=TOLERANCE, atol=0.0):
        raise _unsupported("the factors of rope_freqs.weight are not those of Llama 3")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": TRAINED,
    }


def _unsupported(why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"its rotary positions cannot be converted: {why}",
        hint="take the safetensors checkpoint that the GGUF file was made from",
    )
