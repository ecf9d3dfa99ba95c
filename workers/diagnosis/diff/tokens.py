"""Per-token values of compare jobs, from their `tokens.parquet`, and the positions that several of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.diff_report import Measure
from app.contracts.distances import DISTANCES
from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.token_values import LAYOUT
from workers.text.token_classes.catalogue import CLASS_COLUMN, CLASSES

Array = NDArray[np.float64]
PLACES: Final = ("document", "domain", "window", "position", "token_id")
_DISTANCES: Final = tuple(distance.name for distance in DISTANCES)
VALUES: Final = (*_DISTANCES, "logp_reference", "logp_candidate", "top1_agree", "finite")
FLAGS: Final = {one.name: f"{CLASS_COLUMN}{one.name}" for one in CLASSES}


@dataclass(frozen=True)
class Tokens:
    """Scored positions of one report, one entry per position. What is not finite is NaN.

    `classes` shows which positions are of a token class, by the name of the class.
    """

    document: NDArray[Any]
    domain: NDArray[Any]
    window: NDArray[np.int64]
    position: NDArray[np.int64]
    token_id: NDArray[np.int64]
    measures: Mapping[Measure, Array]
    classes: Mapping[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return self.position.size

    def select(self, index_T: NDArray[Any]) -> Tokens:
        """The positions of a mask or of indices."""
        return Tokens(
            self.document[index_T],
            self.domain[index_T],
            self.window[index_T],
            self.position[index_T],
            self.token_id[index_T],
            {name: column[index_T] for name, column in self.measures.items()},
            {name: column[index_T] for name, column in self.classes.items()},
        )

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Where every measure is finite."""
        return np.asarray(np.isfinite(np.stack(list(self.measures.values()))).all(axis=0))

    def where(self) -> list[tuple[str, int, int]]:
        """What names each position: document, place in it, predicted token."""
        return list(zip(self.document.tolist(), self.position.tolist(), self.token_id.tolist(), strict=True))


def read(file: Path, *, name: str) -> Tokens:
    """The values of a file that a compare job wrote; `name` shows it in errors.

    Raises ARTIFACT_NOT_FOUND if it is not there, INVALID_REQUEST if it is damaged or of another layout.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise _missing(file, name)
    try:
        schema = pq.read_schema(file)
        layout = (schema.metadata or {}).get(b"layout", b"").decode(errors="replace")
        columns = [*PLACES, *VALUES, *FLAGS.values()]
        lacking = [column for column in columns if column not in schema.names]
        if layout != LAYOUT or lacking:
            raise ValueError(f"lacks {', '.join(lacking)}" if lacking else f"has layout {layout[:60]!r}")
        return _of(pq.read_table(file, columns=columns))
    except FileNotFoundError:  # deleted since it was looked at
        raise _missing(file, name) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the {file.name} of {name} does not hold values by token of layout {LAYOUT}: {str(error)[:200]}",
            hint="it may be damaged, or of another version: measure it again",
        ) from error


def _missing(file: Path, name: str) -> HemostatError:
    return HemostatError(
        ErrorCode.ARTIFACT_NOT_FOUND,
        f"{name} has no {file.name}: its values by token are needed",
        hint="give a finished compare job of the running service, or a folder with report.json and tokens.parquet",
    )


def _of(table: Any) -> Tokens:
    def plain(column: str) -> NDArray[Any]:
        values: NDArray[Any] = table[column].to_numpy(zero_copy_only=False)
        return values

    usable = plain("finite").astype(np.bool_)

    def number(column: str) -> Array:
        # A null is what was not finite; it comes as NaN.
        return np.where(usable, plain(column).astype(np.float64), np.nan)

    return Tokens(
        document=plain("document"),
        domain=plain("domain"),
        window=plain("window").astype(np.int64),
        position=plain("position").astype(np.int64),
        token_id=plain("token_id").astype(np.int64),
        measures={
            **{name: number(name) for name in _DISTANCES},
            "log_perplexity": -number("logp_candidate"),
            "top1_agreement": number("top1_agree"),
        },
        classes={name: plain(column).astype(np.bool_) for name, column in FLAGS.items()},
    )


def same_positions(one: Tokens, other: Tokens) -> bool:
    """Whether both scored the same tokens at the same places, in the same order."""
    return (
        len(one) == len(other)
        and bool((one.position == other.position).all())
        and bool((one.token_id == other.token_id).all())
        and bool((one.document == other.document).all())
    )


def shared(all_tokens: Sequence[Tokens]) -> list[Tokens]:
    """Each one's values at the positions that all of them scored, in the order of the first. May be empty."""
    first = all_tokens[0]
    if all(same_positions(first, other) for other in all_tokens[1:]):
        return list(all_tokens)
    places = [{name: index for index, name in enumerate(tokens.where())} for tokens in all_tokens]
    common = [name for name in places[0] if all(name in other for other in places[1:])]
    return [
        tokens.select(np.array([place[name] for name in common], dtype=np.intp))
        for tokens, place in zip(all_tokens, places, strict=True)
    ]
