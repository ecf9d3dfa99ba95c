"""Requests to be checked and estimated, of the models that `tests/unit/app/models/conftest.py` registers."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.contracts.errors import HemostatError
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.compare.request import CompareRequest
from app.kinds.preflight import check_request
from app.models.registry import Registry, load_registry
from app.settings import Settings

DOCUMENT = {"id": "d1", "text": "Two tokens and more."}
RTN = {"type": "quantize.rtn", "bits": 4}


def request(
    *steps: dict[str, Any],
    reference: str = "llama",
    candidate: str = "llama",
    documents: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> CompareRequest:
    return CompareRequest.model_validate(
        {
            "kind": "compare",
            "reference": {"model": reference},
            "self_check": True,
            "candidate": {"model": candidate, "recipe": list(steps)},
            "text": {"source": "inline", "documents": documents or [DOCUMENT]},
            "window": 128,
        }
        | fields
    )


def calibration(**changes: object) -> CalibrateRequest:
    return CalibrateRequest.model_validate(
        {
            "kind": "calibrate",
            "reference": {"model": "llama"},
            "self_check": True,
            "candidate": {"model": "llama"},
            "window": 64,
        }
        | changes
    )


def registry_of(file: Path, folders: dict[str, Path]) -> Registry:
    """The models of a file that is written anew."""
    file.write_text("".join(f"[models.{alias}]\npath = {json.dumps(str(path))}\n" for alias, path in folders.items()))
    return load_registry(file)


def registered(registry: Registry, alias: str, path: Path, **fields: str) -> Registry:
    """With one more model."""
    lines = [
        f"[models.{alias}]",
        *(f"{name} = {json.dumps(str(value))}" for name, value in ({"path": path} | fields).items()),
    ]
    registry.file.write_text(registry.file.read_text() + "\n".join(lines) + "\n")
    return load_registry(registry.file)


def rejection(asked: Any, registry: Registry, settings: Settings) -> HemostatError:
    """Why a request is not queued; there is a hint."""
    with pytest.raises(HemostatError) as caught:
        check_request(asked, registry, settings)
    assert caught.value.hint
    return caught.value
