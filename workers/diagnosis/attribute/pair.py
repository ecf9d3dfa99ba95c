"""The two models of an attribution, ready to be swapped: read, laid out, and run to every border."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.models.checkpoint import CheckpointInfo, inspect
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.mixing import Mixed
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.swapping import Model, Swapper
from workers.distributions.head import Head
from workers.engine.pool import resolve_dtype
from workers.measuring.sides import Side, checkpoint_store
from workers.process.handler import JobContext
from workers.surgery.blockwise.mixtures import fused
from workers.surgery.blockwise.skeleton import DTYPES, Read, Skeleton
from workers.surgery.channels import Channels, framed
from workers.surgery.dequantize import dequantize
from workers.surgery.reading import open_tensors

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
