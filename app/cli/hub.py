"""Models of the Hugging Face hub, fetched into its cache when the user asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from app.cli.output import busy
from app.contracts.errors import ErrorCode, HemostatError

# Weights, configuration and tokenizer. Nothing that is code, and no pickle.
_FILES: Final = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt"]


def download(hub_id: str, revision: str) -> Path:
    """The folder of the snapshot. An interrupted download goes on where it stopped.

    Raises `HemostatError`: CHECKPOINT_NOT_FOUND if the hub does not have the model for this user, UNAVAILABLE if it
    cannot be asked, DISK_FULL.
    """
    try:
        from huggingface_hub import errors, snapshot_download  # only the worker's installation has it
    except ImportError:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            "--download needs the package huggingface_hub, which the worker's installation has",
            hint=f"install the worker, or fetch the model elsewhere: hf download {hub_id}",
        ) from None
    try:
        with busy(f"downloading {hub_id} at {revision} …"):
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_FILES))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_NOT_FOUND,
            f"the hub gives you no model {hub_id} at {revision}",
            hint="correct the id or revision; for a gated model accept its terms, then `hf auth login`",
        ) from error
    except Exception as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"{hub_id} could not be downloaded: {type(error).__name__}",
            hint="check the network, HF_ENDPOINT, HF_HUB_OFFLINE and the free space of the cache; then try again",
        ) from error
