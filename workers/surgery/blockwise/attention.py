"""Which of transformers' attention implementations a block runs.

torch's fused attention of 16-bit numbers goes forward by routines of its own, but backward by products that a processor
which lacks them (`workers.products.lacking`) makes slowly. Without AVX-512, number by number, they were half of a
training step (3.1 s of 6.1 s, 512 tokens, 135M parameters, two cores). Where a gradient is asked for, such a processor
computes attention in float32 and rounds what comes of it once; otherwise nothing is changed.

Scores that are capped (Gemma-2) have no fused routine here: transformers computes them by two plain products, forward
too. There such a processor takes the factors of each product to float32 and rounds it once (`workers.products`).
"""

from typing import Any, Final

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from workers.products import lacking, product

WIDENED: Final = "sdpa_differentiated_in_float32"
CAPPED: Final = "eager_with_products_in_float32"


def capped(dtype: torch.dtype) -> str:
    """Name of the attention for modules of this dtype on this machine whose scores are capped, which transformers'
    fused attention leaves out without a word."""
    if not lacking(dtype):
        return "eager"
    AttentionInterface.register(CAPPED, _capped_attention)
    AttentionMaskInterface.register(CAPPED, eager_mask)
    return CAPPED


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


def _capped_attention(
    module: torch.nn.Module,
    query_NHLE: torch.Tensor,
    key_NGSE: torch.Tensor,
    value_NGSE: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float,
    softcap: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, L, H, E) and the distributions (N, H, L, S), step by step as transformers' eager attention of Gemma-2."""
    groups: Any = module.num_key_value_groups
    key_NHSE, value_NHSE = repeat_kv(key_NGSE, groups), repeat_kv(value_NGSE, groups)
    score_NHLS = product(query_NHLE, key_NHSE.transpose(2, 3)) * scaling
    score_NHLS = torch.tanh(score_NHLS / softcap) * softcap
    if mask is not None:
        score_NHLS = score_NHLS + mask
    p_NHLS = score_NHLS.softmax(-1, dtype=torch.float32).to(query_NHLE.dtype)
    p_NHLS = torch.nn.functional.dropout(p_NHLS, p=dropout, training=module.training)
    return product(p_NHLS, value_NHSE).transpose(1, 2).contiguous(), p_NHLS
