"""Compare reports with their per-token files, of drawn values, for tests of what reads both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.kinds.compare.report import CompareReport
from app.reports import describe
from tests.support.reports import compare_report
from workers.diagnosis.diff.answer import Side
from workers.diagnosis.diff.tokens import read
from workers.distributions.token_values import Positions, TokenValues
from workers.text.token_classes.catalogue import CLASSES

Json = dict[str, Any]
DOCUMENTS, LENGTH = 30, 40


def values(kl: Any, *, logp: Any | None = None, finite: Any | None = None) -> TokenValues:
    """Token values of this KL; everything else is a plain function of it."""
    kl = np.asarray(kl, dtype=np.float64)
    ones = np.ones(kl.size, dtype=np.int64)
    reference = -3.0 * np.ones(kl.size)
    return TokenValues(
        kl=kl,
        reverse_kl=1.1 * kl,
        js=0.2 * kl,
        tv=np.minimum(1.0, 0.5 * kl),
        logp_reference=reference,
        logp_candidate=reference - kl if logp is None else np.asarray(logp, dtype=np.float64),
        entropy_reference=reference * -1,
        entropy_candidate=reference * -1,
        top_probability_reference=np.full(kl.size, 0.5),
        top1_agree=kl < 0.3,
        overlap5=5 * ones,
        overlap10=10 * ones,
        rank_of_reference_top=ones,
        rank_token_reference=ones,
        rank_token_candidate=ones,
        top_reference=ones,
        top_candidate=ones,
        finite=np.ones(kl.size, dtype=np.bool_) if finite is None else np.asarray(finite, dtype=np.bool_),
    )


def positions(documents: int = DOCUMENTS, length: int = LENGTH) -> Positions:
    """One window a document."""
    where = np.repeat(np.arange(documents), length)
    place = np.tile(np.arange(length), documents)
    return Positions(where, where, place, place, 7 + place)


def write_job(
    folder: Path,
    token_values: TokenValues,
    *,
    where: Positions | None = None,
    job: str = "diag_01",
    documents: int = DOCUMENTS,
    domains: tuple[str, ...] = ("prose", "code"),
    classes: Mapping[str, Any] | None = None,
    **provenance: Any,
) -> Path:
    """A folder with report.json and tokens.parquet; `provenance` replaces fields (`protocol` and models by field).

    `classes` are masks by the name of a token class; no position is of the others."""
    masks = {f"class_{one.name}": np.zeros(len(token_values), dtype=np.bool_) for one in CLASSES}
    for name, mask in (classes or {}).items():
        masks[f"class_{name}"] |= np.asarray(mask, dtype=np.bool_)
    folder.mkdir(parents=True, exist_ok=True)
    report: Json = compare_report()
    report["job"] = job
    for name, value in provenance.items():
        origin = report["provenance"]
        origin[name] = origin[name] | value if isinstance(value, dict) else value
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    token_values.to_parquet(
        folder / "tokens.parquet",
        positions() if where is None else where,
        [f"d{index}" for index in range(documents)],
        [domains[index % len(domains)] for index in range(documents)],
        flags=masks,
    )
    return folder


def side_of(folder: Path) -> Side:
    """A folder of `write_job` as one side of a difference, named as people read its candidate."""
    report = CompareReport.model_validate_json((folder / "report.json").read_bytes())
    return Side(describe.model(report.provenance.candidate), report, read(folder / "tokens.parquet", name=folder.name))
