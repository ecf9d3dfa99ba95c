"""Two tiny models ready to be swapped: one is the other with known changes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.tiny import make_checkpoint
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.mixing import Mixed
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.swapping import Model, Swapper
from workers.distributions.head import Head
from workers.distributions.token_values import Positions
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

Weights = dict[str, torch.Tensor]
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def changed_copy(source: Path, folder: Path, change: Callable[[Weights], None]) -> Path:
    """A copy of a checkpoint with other weights."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def noisy(weights: Weights, *names: str, size: float = 0.2, seed: int = 3) -> None:
    """Gaussian noise of `size` standard deviations onto tensors."""
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        own = weights[name].float()
        noise = torch.randn(own.shape, generator=generator) * own.std() * size
        weights[name] = (own + noise).to(weights[name].dtype).contiguous()


def subset(windows: int = 18, length: int = 24, seed: int = 0) -> Subset:
    """Random tokens, all positions but each window's last scored, three windows a document."""
    generator = torch.Generator().manual_seed(seed)
    tokens_NL = torch.randint(2, 300, (windows, length), generator=generator)
    scored_NL = torch.ones(windows, length, dtype=torch.bool)
    scored_NL[:, -1] = False
    window = np.repeat(np.arange(windows), length - 1).astype(np.int32)
    where = Positions(window // 3, window, window, window, window)
    return Subset(
        tokens_NL, scored_NL, torch.roll(tokens_NL, -1, 1), tuple(range(windows)), where, np.arange(window.size)
    )


@contextmanager
def swapper(
    reference: Path, candidate: Path, scratch: Path, text: Subset, dtype: torch.dtype = torch.bfloat16
) -> Iterator[Swapper]:
    """A swapper over two checkpoints."""
    infos = [inspect(reference), inspect(candidate)]
    with ExitStack() as stack:
        reads = [stack.enter_context(open_tensors(info)).read for info in infos]
        models = []
        for name, info, own, other in (
            ("reference", infos[0], reads[0], reads[1]),
            ("candidate", infos[1], reads[1], reads[0]),
        ):
            mixed = Mixed(own, other, dtype)
            skeleton = Skeleton(info, fused(info, mixed), dtype=dtype, mixtures=True)
            models.append(Model(Borders(skeleton, text.tokens_NL, scratch, name=name), mixed, Head.load(info.path)))
        yield Swapper(models[0], models[1], text, scratch / "ledger")


def pair(folder: Path, change: Callable[[Weights], None], kind: str = "llama", **options: object) -> tuple[Path, Path]:
    """A tiny checkpoint and a changed copy."""
    reference = make_checkpoint(folder / "reference", kind, **options)
    return reference, changed_copy(reference, folder / "candidate", change)


def whole_model_kl(reference: Path, own: Path, weights: Weights, text: Subset) -> np.ndarray:
    """KL(reference ‖ own with these weights) in float64, from logits of whole models."""
    logits = []
    for folder, replaced in ((reference, {}), (own, weights)):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        # a tied matrix is two parts: one may be replaced without the other
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        state = model.state_dict()
        for name, tensor in replaced.items():
            state[name].copy_(tensor.float())
        with torch.no_grad():
            logits.append(model(text.tokens_NL).logits.double().log_softmax(-1))
    p, q = (one[text.scored_NL] for one in logits)
    found: np.ndarray = (p.exp() * (p - q)).sum(-1).numpy()
    return found
