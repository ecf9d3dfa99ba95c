"""Channels scaled down in what comes before a linear layer and up in the layer: the same function, other weights.

With s > 0 for each input channel, W x = (W · s)(x / s). x / s costs nothing if what makes x can be
divided. That is a norm's weight, or the rows of up_proj before down_proj (the gate's product is channel by channel). It
is also the rows of v_proj before o_proj: attention mixes tokens, not channels. Heads that share keys and values share
s. SmoothQuant and AWQ both do
this.

A norm's divided weight is rounded to its dtype. S is then taken to be what the rounding made it, so that the function
stays the same to the rounding of float32. Gemma's norms multiply by 1 + weight.

Shapes: O output, I input dimension of the layer behind; P channels of what comes before (fewer than I where heads
share)."""

from dataclasses import dataclass

import torch

from app.models.shapes import LAYOUTS
from workers.surgery.blockwise.walk import Block, Group
from workers.surgery.gains import offset_of
from workers.surgery.safetensors_writer import DTYPES
from workers.surgery.step_run import StepRun
from workers.surgery.width import width_of


@dataclass(frozen=True)
class Pair:
    """`group`: the layers behind. `norm`: the norm's tensor before them; or `rows`: the layer before them, of whose
    output P channels from `first` on are theirs, each `head` of them read `repeats` times."""

    group: Group
    norm: str | None = None
    rows: str | None = None
    first: int = 0
    head: int = 1
    repeats: int = 1

    def spread(self, s_P: torch.Tensor) -> torch.Tensor:
        """(I) of (P): channels as the layers behind see them."""
        return s_P.reshape(-1, 1, self.head).expand(-1, self.repeats, -1).reshape(-1)

    def shared(self, value_I: torch.Tensor) -> torch.Tensor:
        """(P) of (I): the mean over those that must be scaled alike."""
        return value_I.reshape(-1, self.repeats, self.head).mean(1).reshape(-1)


def pairs(block: Block, architecture: str) -> list[Pair]:
    """What can be folded into what in one block, in the order in which it is run."""
    layout = LAYOUTS[architecture]
    attention = f"{block.prefix}self_attn."
    mlp = f"{block.prefix}mlp."
    before_mlp = "pre_feedforward_layernorm" if layout.feedforward_norms else "post_attention_layernorm"
    qkv, gate = ("qkv_proj", "gate_up_proj") if layout.fused else ("q_proj", "gate_proj")
    v, up = ("qkv_proj", "gate_up_proj") if layout.fused else ("v_proj", "up_proj")
    o_name, down_name = f"{attention}o_proj.weight", f"{mlp}down_proj.weight"
    heads = block.linears[o_name].in_features
    if layout.fused:
        kv_heads = (block.linears[f"{attention}{v}.weight"].out_features - heads) // 2
    else:
        kv_heads = block.linears[f"{attention}{v}.weight"].out_features
    head = int(block.module.self_attn.head_dim)  # type: ignore[union-attr, arg-type]
    inner = block.linears[down_name].in_features
    return [
        Pair(block.group_of(f"{attention}{qkv}.weight"), norm=f"{block.prefix}input_layernorm.weight"),
        Pair(
            (o_name,),
            rows=f"{attention}{v}.weight",
            first=heads + kv_heads if layout.fused else 0,
            head=head,
            repeats=heads // kv_heads,
        ),
        Pair(block.group_of(f"{mlp}{gate}.weight"), norm=f"{block.prefix}{before_mlp}.weight"),
        Pair((down_name,), rows=f"{mlp}{up}.weight", first=inner if layout.fused else 0),
    ]


class Folded:
    """The weights of one block while channels are scaled, in float32; `close` puts what was changed. The context's
    record of channels is reported of every factor."""

    def __init__(self, context: StepRun, block: Block) -> None:
        self._shop, self._block = context, block
        self._weights: dict[str, torch.Tensor] = {}
        self._small: dict[str, torch.Tensor] = {}
        self._changed: set[str] = set()
        self._scaled_inputs: set[str] = set()
        self._offset = offset_of(context.source)

    def weight(self, name: str) -> torch.Tensor:
        """(O, I) as it is now."""
        if name not in self._weights:
            self._weights[name] = self._shop.read(name).to(torch.float32)
        return self._weights[name]

    def scale(self, pair: Pair, s_P: torch.Tensor) -> torch.Tensor:
        """Divides what comes before by s and multiplies the layers behind. Returns s as it came to be, (I)."""
        s_P = self._divide_norm(pair.norm, s_P) if pair.norm else self._divide_rows(pair, s_P)
        s_I = pair.spread(s_P)
        for name in pair.group:
            self._weights[name] = self.weight(name) * s_I
            self._shop.channels.scale(name, inputs=s_I)
            self._scaled_inputs.add(name)
            self._changed.add(name)
        return s_I

    def close(self, quantized: dict[str, torch.Tensor]) -> None:
        """Puts norms, biases and layers that were scaled and are not among the quantized; gives the running block all
        of its new weights."""
        state = dict(quantized)
        for name in self._changed - quantized.keys():
            state[name] = self._weights[name].to(DTYPES[self._shop.source.tensors[name].dtype])
            # a factor a row goes into the scales of a grid that the weight may be on; one a column does not
            bits = width_of(state[name]) if name in self._scaled_inputs else None
            self._shop.put(name, state[name], bits=bits)
        for name, tensor in self._small.items():
            state[name] = tensor.to(DTYPES[self._shop.source.tensors[name].dtype])
            self._shop.put(name, state[name])
        for name, tensor in state.items():
            parameter = self._block.module.get_parameter(name.removeprefix(self._block.prefix))
            parameter.data = tensor.to(parameter.dtype)

    def _divide_norm(self, name: str, s_P: torch.Tensor) -> torch.Tensor:
        dtype = DTYPES[self._shop.source.tensors[name].dtype]
        weight_P = self._small.get(name, self._shop.read(name).to(torch.float32))
        offset = self._offset
        made_P = ((weight_P + offset) / s_P - offset).to(dtype).to(torch.float32)
        gain_P, made_gain_P = weight_P + offset, made_P + offset
        good_P = (gain_P != 0) & (made_gain_P != 0)
        self._small[name] = torch.where(good_P, made_P, weight_P)
        s_P = torch.where(good_P, gain_P / made_gain_P, 1.0)
        self._shop.channels.scale(name, outputs=s_P.reciprocal())
        return s_P

    def _divide_rows(self, pair: Pair, s_P: torch.Tensor) -> torch.Tensor:
        assert pair.rows is not None  # noqa: S101 - a pair has a norm or rows
        rows = slice(pair.first, pair.first + len(s_P))
        weight_OI = self.weight(pair.rows).clone()
        weight_OI[rows] /= s_P[:, None]
        self._weights[pair.rows] = weight_OI
        factor_O = torch.ones(len(weight_OI))
        factor_O[rows] /= s_P
        self._shop.channels.scale(pair.rows, outputs=factor_O)
        self._changed.add(pair.rows)
        bias = pair.rows.removesuffix(".weight") + ".bias"
        if bias in self._shop.source.tensors:
            bias_O = self._small.get(bias, self._shop.read(bias).to(torch.float32)).clone()
            bias_O[rows] /= s_P
            self._small[bias] = bias_O
            self._shop.channels.scale(bias, outputs=factor_O)
        return s_P
