"""Random block corrections of the tiny models, and transformers with them by hooks: the oracle."""

from typing import Any

import torch

from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks

HIDDEN, LAYERS = 64, 3


def corrections(ranks: dict[int, int], *, seed: int = 0, layers: int = LAYERS) -> Blocks:
    """Block → rank. Large enough to change what a model says."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * 0.15

    made = {
        block: BlockCorrection(normal(r, HIDDEN), normal(HIDDEN, r), normal(HIDDEN), torch.tensor(NO_LIMIT))
        for block, r in ranks.items()
    }
    return Blocks(made, layers=layers, hidden_size=HIDDEN)


def hooked(model: Any, blocks: Blocks) -> None:
    """Each decoder layer's output, corrected by the formula."""
    for block, one in blocks.items():

        def correct(_: Any, __: Any, output: Any, one: BlockCorrection = one) -> Any:
            h = output[0] if isinstance(output, tuple) else output
            rms = (h.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
            matrix = one.up_DR.double() @ one.down_RD.double()
            c = (h + rms * ((h / rms) @ matrix.T + one.bias_D)).to(h.dtype)
            return (c, *output[1:]) if isinstance(output, tuple) else c

        model.model.layers[block].register_forward_hook(correct)
