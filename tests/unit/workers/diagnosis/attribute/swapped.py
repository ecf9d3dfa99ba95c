"""Two tiny models ready to be swapped: one is the other with known changes."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.tiny import make_checkpoint
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.changes import differing
from workers.diagnosis.attribute.mixing import Mixed
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.swapping import Model, Swapper
from workers.distributions.head import Head
from workers.distributions.token_values import Positions
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors

Weights = dict[str, torch.Tensor]
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def changed_copy(source, folder, change):
    """A copy of a checkpoint with other weights."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def noisy(weights, *names, size=0.2, seed=3):
    """Gaussian noise of `size` standard deviations onto tensors."""
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        own = weights[name].float()
        noise = torch.randn(own.shape, generator=generator) * own.std() * size
        weights[name] = (own + noise).to(weights[name].dtype).contiguous()


def subset(windows=18, length=24, seed=0):
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
def swapper(reference, candidate, scratch, text, dtype=torch.bfloat16):
    """A swapper over two checkpoints."""
    infos = [inspect(reference), inspect(candidate)]
    with ExitStack() as stack:
        reads = [stack.enter_context(open_tensors(info, "cpu")).read for info in infos]
        models = []
        for name, info, own, other in (
            ("reference", infos[0], reads[0], reads[1]),
            ("candidate", infos[1], reads[1], reads[0]),
        ):
            mixed = Mixed(own, other, dtype)
            skeleton = Skeleton(info, fused(info, mixed), device="cpu", dtype=dtype, mixtures=True)
            models.append(Model(Borders(skeleton, text.tokens_NL, scratch, name=name), mixed, Head.load(info.path)))
        yield Swapper(models[0], models[1], text, scratch / "ledger")


def pair(folder, change, kind="llama", **options):
    """A tiny checkpoint and a changed copy."""
    reference = make_checkpoint(folder / "reference", kind, **options)
    return reference, changed_copy(reference, folder / "candidate", change)


def first(text, positions):
    """The windows that hold the first positions."""
    windows = positions // int(text.scored_NL[0].sum())
    return replace(text, tokens_NL=text.tokens_NL[:windows], scored_NL=text.scored_NL[:windows])


def reads_of(*folders):
    """What reads a tensor of each checkpoint by its name."""
    return tuple(load_file(folder / "model.safetensors").__getitem__ for folder in folders)


def differing_of(reference, candidate):
    """The parts that differ."""
    ours, theirs = inspect(reference), inspect(candidate)
    return differing(sites_of(ours), ours, theirs, reads_of(reference, candidate), lambda: None)


def by_name(folder):
    return {site.name: site for site in sites_of(inspect(folder))}


def whole_model_kl(reference, own, weights, text):
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
    return (p.exp() * (p - q)).sum(-1).numpy()
