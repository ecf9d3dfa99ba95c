"""What the reports of all kinds say of an attempt: the envelope, provenance, common warnings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, cast

from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.contracts.report import (
    ModelProvenance,
    Protocol,
    Provenance,
    SeverityVerdict,
)
from app.contracts.request import JobRequest
from app.models.checkpoint import CheckpointInfo
from app.recipes.notices import made
from workers.distributions.divergence import Precision, arithmetic
from workers.distributions.intervals import DESCRIPTION
from workers.engine.device import EngineIdentity
from workers.engine.sizes import step_tokens
from workers.measuring import long_context
from workers.measuring.floor import Floor
from workers.measuring.sides import Side, Sides
from workers.process.handler import JobContext
from workers.text.windows import Corpus

# What a number depends on beside the models.
VERSIONS = ("torch", "transformers", "compressed-tensors", "numpy", "scipy")


# Plain weights, by scheme: the dtype that they are stored in, and those of an engine that hold fewer digits of them.
_STORED: Final = {"f32": "float32", "f16": "float16"}
_NARROWER: Final = {"f32": ("bfloat16", "float16"), "f16": ("bfloat16",)}


def of_making(sides: Sides, name: str = "the candidate") -> list[Notice]:
    """What the steps of the candidate's recipe warned of, such as too little text for a matrix that was regularized."""
    return [
        made(name, warning, record.types) for record in sides.modified.manifest.steps for warning in record.warnings
    ]


def left_out(nonfinite: int) -> list[Notice]:
    """A warning where positions had no finite logits."""
    return [Warned.NONFINITE_POSITIONS(positions=nonfinite)] if nonfinite else []


def packed_reference(sides: Sides) -> list[Notice]:
    """A warning where the reference alone is packed: no plain twin of the candidate distinguishes its kernels."""
    if sides.reference.info.quantization is None or sides.candidate.info.quantization is not None:
        return []
    return [Warned.PACKED_REFERENCE(scheme=sides.reference.info.scheme)]


def rounded(sides: Sides, dtype: str) -> list[Notice]:
    """A warning where plain weights are stored in a wider dtype than the engine's. The engine rounds them before
    anything is compared: what that loses is in no number."""
    wide = {
        side.alias: side.info.scheme
        for side in (sides.candidate, sides.reference)
        if side.info.quantization is None and dtype in _NARROWER.get(side.info.scheme, ())
    }
    return [Warned.ROUNDED_WEIGHTS(model=alias, stored=_STORED[scheme], dtype=dtype) for alias, scheme in wide.items()]


def repeated_documents(corpus: Corpus) -> Iterator[Notice]:
    """What a reader should know of a corpus with documents that stand in it more than once."""
    if corpus.repeated:
        yield Warned.REPEATED_DOCUMENTS(repeated=corpus.repeated, documents=len(corpus.documents))


def envelope(
    request: JobRequest, context: JobContext, decision: SeverityVerdict, floor: Floor, source: Provenance
) -> dict[str, Any]:
    """The fields of every kind's report that follow from the attempt and its verdict."""
    return {
        "job": context.job_id,
        "severity": decision.severity,
        "decision": decision,
        "noise_floor": floor.report,
        "request": repeatable(request),
        "provenance": source,
    }


def repeatable(request: JobRequest) -> dict[str, object]:
    """The request without the documents of an inline text, wherever it has one: a report is shared, and need not hold
    them."""
    return cast("dict[str, object]", _without_documents(json.loads(request.model_dump_json())))


def _without_documents(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_documents(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("source") == "inline" and isinstance(value.get("documents"), list):
        return {"source": "inline"}
    return {name: _without_documents(one) for name, one in value.items()}


@dataclass(frozen=True)
class Conditions:
    """How an attempt measured. `seconds` are those of its phases so far, `precision` is the one that was asked for, and
    `reference_context` the reference's if it is shorter than the windows."""

    engine: EngineIdentity
    started_at: float
    seconds: Mapping[str, float]
    reference_from_store: bool
    precision: Precision = "fast"
    resumed_windows: int = 0
    reference_context: int | None = None


def provenance(request: JobRequest, conditions: Conditions, *, sides: Sides, corpus: Corpus) -> Provenance:
    """Where the numbers of a report over `corpus` come from."""
    engine, reference_context = conditions.engine, conditions.reference_context
    return Provenance(
        hemostat=metadata.version("hemostat"),
        engine=f"{engine.name} {engine.version}",
        execution=execution(engine, sides.reference.info),
        device=engine.device,
        dtype=engine.dtype,
        precision=arithmetic(conditions.precision, engine.processor),
        head=sides.candidate.head.fingerprint,
        reference=_model(sides.reference),
        candidate=_candidate(sides),
        protocol=Protocol(
            window=corpus.window,
            stride=corpus.stride,
            bos=corpus.bos,
            scored=corpus.protocol + ("" if reference_context is None else long_context.protocol(reference_context)),
            text_source=request.text.source,
            text_fingerprint=corpus.fingerprint,
            tokenizer_fingerprint=sides.tokenizer_fingerprint,
            vocabulary=sides.reference.head.vocabulary,
            chat_template=corpus.chat_template,
            reference_context=reference_context,
        ),
        seed=request.seed,
        intervals=DESCRIPTION,
        started_at=conditions.started_at,
        finished_at=time.time(),
        seconds=dict(conditions.seconds),
        reference_from_store=conditions.reference_from_store,
        resumed_windows=conditions.resumed_windows,
        versions={name: metadata.version(name) for name in VERSIONS} | {engine.name: engine.version},
    )


def execution(engine: EngineIdentity, reference: CheckpointInfo) -> str:
    """How forward passes ran. The size of a batch is the reference's: a smaller candidate may have larger ones by the
    same rule, and is compared all the same."""
    tokens = step_tokens(reference, engine.batch_tokens, engine.processor)
    return f"{engine.mode}, batches of at most {tokens:,} tokens"


def _model(side: Side) -> ModelProvenance:
    info = side.info
    return ModelProvenance(
        model=side.alias,
        weights_fingerprint=side.weights,
        scheme=info.scheme,
        bits_per_weight=8 * info.bytes / info.parameters,
        bytes=info.bytes,
        file_bytes=info.bytes,
    )


def _candidate(sides: Sides) -> ModelProvenance:
    """A simulated modification is stored in bf16; bits and bytes are what its packed form would take.
    A packed one's are its own."""
    manifest = sides.modified.manifest
    if not manifest.recipe:
        return _model(sides.candidate)
    return ModelProvenance(
        model=sides.candidate.alias,
        weights_fingerprint=sides.candidate.weights,
        recipe=manifest.recipe,
        recipe_fingerprint=manifest.recipe_fingerprint,
        scheme=manifest.scheme,
        bits_per_weight=manifest.model_bits_per_weight,
        bytes=manifest.model_nominal_bytes,
        file_bytes=sides.candidate.info.bytes,
        sparsity=manifest.sparsity,
        nominal_sparsity=manifest.nominal_sparsity,
        reconstruction_error=manifest.reconstruction_error,
    )
