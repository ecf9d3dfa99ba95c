"""Corrections of a checkpoint's residual stream, beside its weights: the section `hemostat_blocks` of its config.json.

    "hemostat_blocks": {"sha256": of the file `FILE` in the folder}

The file has the format of `workers.calibrators.blocks`. Its name does not end in `.safetensors`, so that no loader
takes it for weights. The checksum makes config.json, and whatever is kept by it, differ where the corrections do.
"""

from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION as SIMULATION

SECTION: Final = "hemostat_blocks"
FILE: Final = "blocks.corrections"
# Of the map after a block: what is fitted, and the most that a replica has room for.
RANK: Final = 64
# What engines of ours do for a checkpoint, and nothing else that runs it does.
ENGINE_SECTIONS: Final = frozenset({SIMULATION, SECTION})


class BlocksSection(Contract):
    """The section."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def blocks_in(config: dict[str, Any]) -> BlocksSection | None:
    """The section of a config.json; None without one. Raises CHECKPOINT_CORRUPT for a damaged one."""
    told = config.get(SECTION)
    try:
        return None if told is None else BlocksSection.model_validate(told)
    except ValidationError as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"config.json: {SECTION} is not valid: {error.errors()[0]['msg']}",
            hint="fit the corrections again",
        ) from error
