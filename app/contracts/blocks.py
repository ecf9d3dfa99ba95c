"""What a checkpoint asks of its engine beside its weights, each by a section of its config.json:

    "hemostat_blocks": {"sha256": of the file `FILE` in the folder}         corrections of the residual stream
    "hemostat_repair": {"sha256": of the weights in the folder `ADAPTER`}   a PEFT LoRA beside its linear layers

The first file has the format of `workers.calibrators.blocks`. Its name does not end in `.safetensors`, and loaders do
not look into folders, so that no loader takes either for weights. The checksum makes config.json, and whatever is kept
by it, differ where the corrections do.
"""

from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION as SIMULATION

SECTION: Final = "hemostat_blocks"
FILE: Final = "blocks.corrections"
REPAIR: Final = "hemostat_repair"
ADAPTER: Final = "adapter"
# Of the map after a block: what is fitted, and the most that a replica has room for.
RANK: Final = 64
# What engines of ours do for a checkpoint, and nothing else that runs it does.
ENGINE_SECTIONS: Final = frozenset({SIMULATION, SECTION, REPAIR})


class FileSection(Contract):
    """The section."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def blocks_in(config: dict[str, Any]) -> FileSection | None:
    """The section of block corrections in a config.json; None without one. Raises CHECKPOINT_CORRUPT for a damaged
    one."""
    return _in(config, SECTION, hint="fit the corrections again")


def repair_in(config: dict[str, Any]) -> FileSection | None:
    """The section of a repair likewise."""
    return _in(config, REPAIR, hint="start the replica again")


def _in(config: dict[str, Any], section: str, *, hint: str) -> FileSection | None:
    told = config.get(section)
    try:
        return None if told is None else FileSection.model_validate(told)
    except ValidationError as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"config.json: {section} is not valid: {error.errors()[0]['msg']}",
            hint=hint,
        ) from error
