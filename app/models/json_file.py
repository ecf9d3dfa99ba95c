"""JSON files that come with a checkpoint, a tokenizer or an adapter: read within a bound of their size."""

import json
from pathlib import Path
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError

# Of a configuration. The largest known ones have 1.2 MB.
MOST_BYTES: Final = 4 * 1024**2
# What reading values of any type as what they should be raises.
MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def read_json(file: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object that the file holds.

    Raises `HemostatError`: CHECKPOINT_INCOMPLETE if there is no such file, CHECKPOINT_CORRUPT if it is larger than
    `most_bytes`, or holds no JSON object.
    """
    if not file.is_file():  # nor does a pipe or a device count
        raise HemostatError(
            ErrorCode.CHECKPOINT_INCOMPLETE, f"the folder has no {file.name}", hint="fetch or copy the missing file"
        )
    try:
        with file.open("rb") as stream:
            raw = stream.read(most_bytes + 1)
        if len(raw) > most_bytes:
            raise ValueError(f"it has more than {most_bytes:,} bytes")
        data = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT, f"{file.name} cannot be read: {error}", hint="fetch the file again"
        ) from error
    if not isinstance(data, dict):
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT, f"{file.name} is not a JSON object", hint="fetch the file again"
        )
    return data
