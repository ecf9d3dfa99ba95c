"""Which of transformers' attention implementations a block runs.

torch's fused attention of 16-bit numbers goes forward by routines of its own, but backward by products that a processor
without AVX-512 makes number by number: half of a training step there (3.1 s of 6.1 s, 512 tokens, 135M parameters, two
cores). Where a gradient is asked for, such a processor computes attention in float32 and rounds what comes of it once;
otherwise nothing is changed.
"""

from typing import Any, Final

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workers.products import lacking

WIDENED: Final = "sdpa_differentiated_in_float32"


def implementation(dtype: torch.dtype) -> str:
    """Name of the fused attention for modules of this dtype on this machine."""
    if not lacking(dtype):
        return "sdpa"
    AttentionInterface.register(WIDENED, _attention)
    AttentionMaskInterface.register(WIDENED, sdpa_mask)
    return WIDENED


def _attention(
    module: torch.nn.Module,
    query_NHLE: torch.Tensor,
    key_NGSE: torch.Tensor,
    value_NGSE: torch.Tensor,
    mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(N, L, H, E). N windows, H and G heads of queries and of keys, L queries and S keys, E numbers of a head."""
    asked = torch.is_grad_enabled() and any(one.requires_grad for one in (query_NHLE, key_NGSE, value_NGSE))
    if query_NHLE.device.type != "cpu" or not asked:
        return sdpa_attention_forward(module, query_NHLE, key_NGSE, value_NGSE, mask, **kwargs)
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    found_NLHE, _ = sdpa_attention_forward(
        module, query_NHLE.float(), key_NGSE.float(), value_NGSE.float(), mask, **kwargs
    )
    return found_NLHE.to(query_NHLE.dtype), None
