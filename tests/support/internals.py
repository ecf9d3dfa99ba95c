"""Two tiny models at their layer borders, and transformers' own view of one, for tests of what is measured inside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from workers.diagnosis.attribute.borders import Borders
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

TOKENS_NL = torch.randint(2, 300, (8, 32), generator=torch.Generator().manual_seed(11))
DOCUMENT_N = [0, 0, 1, 2, 3, 4, 5, 6]


@contextmanager
def at_borders(
    *folders: Path, scratch: Path, tokens_NL: torch.Tensor = TOKENS_NL, dtype: torch.dtype = torch.float32
) -> Iterator[list[Borders]]:
    """The states of each model, whose weights can be read while in the `with`."""
    with ExitStack() as stack:
        found = []
        for number, folder in enumerate(folders):
            info = inspect(folder)
            read = stack.enter_context(open_tensors(info, "cpu")).read
            found.append(
                Borders(Skeleton(info, read, device="cpu", dtype=dtype), tokens_NL, scratch, name=f"model{number}")
            )
        yield found


def whole(folder: Path) -> Any:
    """transformers' model, with eager attention, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@torch.no_grad()
def run(model: Any, tokens_NL: torch.Tensor = TOKENS_NL, **options: Any) -> Any:
    """Its output, with whatever is asked for."""
    return model(tokens_NL, use_cache=False, **options)


def kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL of two tensors of logits by the definition, in float64."""
    p, q = first.double().log_softmax(-1), second.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
