"""The two models of an attribution, ready to be swapped: read, laid out, and run to every border."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from app.models.checkpoint import CheckpointInfo, inspect
from workers.diagnosis.attribute.borders import Borders, layer_elements
from workers.diagnosis.attribute.mixing import Mixed
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.swapping import STATES_BYTES, Model, Swapper
from workers.distributions.head import Head
from workers.engine.pool import resolve_dtype
from workers.engine.sizes import ITEM_BYTES, divergence_bytes
from workers.measuring.sides import Side, checkpoint_store
from workers.process.handler import JobContext
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import DTYPES, Read, Skeleton
from workers.surgery.channels import Channels, framed
from workers.surgery.dequantize import dequantize
from workers.surgery.reading import open_tensors

# Per element of a tensor that noise is added to: three tensors in the models' dtype, and their work in float32.
TWIN_BYTES: Final = 24
# What the service calls its dtypes.
_TORCH = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@contextmanager
def plain(side: Side, device: str, context: JobContext) -> Iterator[CheckpointInfo]:
    """The checkpoint, dequantized where it is packed, for the length of a `with`."""
    if side.info.quantization is None:
        yield side.info
        return
    with dequantize(
        side.info,
        device=device,
        store=checkpoint_store(context),
        progress=lambda _, done, total: context.progress("dequantize", done, total),
        check_cancelled=context.check_cancelled,
    ) as stored:
        yield inspect(stored.path)


def why_not(reference: CheckpointInfo, candidate: CheckpointInfo) -> str:
    """Why no part of one has a counterpart in the other; empty if it has."""
    if reference.layers == candidate.layers:
        return ""
    return (
        f"the models have {reference.layers} and {candidate.layers} layers, so that parts have no counterpart of the "
        "same number"
    )


def swapping_bytes(infos: tuple[CheckpointInfo, CheckpointInfo], tokens: int, dtype: str) -> int:
    """Bytes of a GPU that swaps on so many tokens take. Computed, not measured.

    They hold both embeddings, a layer of each model, states before and after a norm, and two divergences. These are of
    the reference with itself and with the candidate. A twin adds what noise on the largest tensor takes.
    """
    item = ITEM_BYTES[resolve_dtype(dtype)]
    heads = [info.vocabulary * info.hidden_size for info in infos]
    largest = max(tensor.elements for info in infos for tensor in info.tensors.values())
    states = 6 * min(STATES_BYTES, tokens * infos[0].hidden_size * item)
    divergences = divergence_bytes(infos[0], "cuda") + divergence_bytes(infos[0], "cuda", candidate=infos[1])
    return item * (sum(heads) + sum(map(layer_elements, infos))) + states + divergences + TWIN_BYTES * largest


@contextmanager
def opened(
    reference: CheckpointInfo,
    candidate: CheckpointInfo,
    subset: Subset,
    dtype: str,
    device: str,
    scratch: Path,
    context: JobContext,
) -> Iterator[tuple[Swapper, tuple[Read, Read]]]:
    """A swapper over both models, and their readers, the candidate's in the reference's frame. `scratch` belongs to
    these models and this text.

    If channels of one are scaled, each gets the other's parts in its own frame. Otherwise the scale alone would look
    like damage. Whole layers run as they are.
    """
    run_in = DTYPES[_TORCH[resolve_dtype(dtype)]]
    with ExitStack() as stack:
        frames = [Channels.of(info) for info in (reference, candidate)]
        reads = [stack.enter_context(open_tensors(info, device)).read for info in (reference, candidate)]
        theirs = [framed(reads[1], frames[1], frames[0]), framed(reads[0], frames[0], frames[1])]
        models = []
        for name, info, own, other in (
            ("reference", reference, reads[0], theirs[0]),
            ("candidate", candidate, reads[1], theirs[1]),
        ):
            mixed = Mixed(own, other, run_in)
            borders = Borders(
                Skeleton(info, fused(info, mixed), device=device, dtype=run_in, mixtures=True),
                subset.tokens_NL,
                scratch,
                name=name,
                progress=lambda phase, done, total: context.progress(f"borders: {phase}", done, total),
                check_cancelled=context.check_cancelled,
            )
            models.append(Model(borders, mixed, Head.load(info.path, dtype=run_in)))
        yield (
            Swapper(models[0], models[1], subset, scratch / "ledger", check_cancelled=context.check_cancelled),
            (reads[0], theirs[0]),
        )
