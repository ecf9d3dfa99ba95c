"""What is known of every scored position: one array a quantity, one entry a position.

A struct of arrays and not an array of structs: every statistic reads whole columns. Divergences are in nats over the
full vocabulary, p the reference's and q the candidate's next-token distribution after the same tokens, x the observed
token.
"""

import os
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.distances import DISTANCES

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

# What a file says of itself, so that another layout is refused and not misread.
LAYOUT = "hemostat.token_values/1"

_INTEGER: dict[str, type[np.signedinteger[Any]]] = {
    "overlap5": np.int8,
    "overlap10": np.int8,
    "rank_of_reference_top": np.int32,
    "rank_token_reference": np.int32,
    "rank_token_candidate": np.int32,
    "top_reference": np.int32,
    "top_candidate": np.int32,
}
_BOOLEAN = frozenset({"top1_agree", "finite"})


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each entry of a `TokenValues` is. All arrays have its length.

    `document` and `window` are indices into the corpus. `position` is the index of the predicted token among the
    document's tokens, `context` the number of tokens before it in its window (BOS included), `token_id` the predicted
    token. `domain` numbers the document's domain; None: all are of one.
    """

    document: Ints
    window: Ints
    position: Ints
    context: Ints
    token_id: Ints
    domain: Ints | None = None

    def __post_init__(self) -> None:
        lengths = set()
        for name, column in self._columns().items():
            array = np.asarray(column).astype(np.int32, copy=False)
            if array.ndim != 1:
                raise ValueError(f"{name} has {array.ndim} dimensions, one is needed")
            object.__setattr__(self, name, array)
            lengths.add(array.size)
        if len(lengths) != 1:
            raise ValueError("columns differ in length")

    def __len__(self) -> int:
        return self.document.size

    def _columns(self) -> dict[str, Ints]:
        return {name: column for name, column in vars(self).items() if column is not None}

    def select(self, index: ArrayLike) -> Self:
        """The positions of a boolean mask or of integer indices."""
        chosen = _index(index)
        return type(self)(**{name: column[chosen] for name, column in self._columns().items()})


@dataclass(frozen=True, eq=False)
class TokenValues:
    """Per-position values, each array of one length; floats are float32 or float64, kept as they come.

    - each distance of `app.contracts.distances`, `kl` = KL(p‖q) among them
    - `logp_reference`, `logp_candidate`: ln p(x), ln q(x)
    - `entropy_reference`, `entropy_candidate`: nats
    - `top_probability_reference`: max p, the reference's confidence
    - `top1_agree`: argmax p = argmax q; `overlap5`, `overlap10`: common tokens among the k most likely of each
    - `rank_of_reference_top`: rank in q of argmax p, 1 is the most likely
    - `rank_token_reference`, `rank_token_candidate`: rank of x in p and in q
    - `top_reference`, `top_candidate`: argmax p, argmax q (token ids)
    - `finite`: both logit rows were finite; where not, values of both mean nothing, and those of one model alone
      (`logp_…`, `entropy_…`, `top_probability_reference`) are NaN or that model's own

    Raises ValueError if lengths, dimensions or kinds of number do not fit.
    """

    kl: Floats
    __annotations__ |= {distance.name: Floats for distance in DISTANCES}
    logp_reference: Floats
    logp_candidate: Floats
    entropy_reference: Floats
    entropy_candidate: Floats
    top_probability_reference: Floats
    top1_agree: Bools
    overlap5: Ints
    overlap10: Ints
    rank_of_reference_top: Ints
    rank_token_reference: Ints
    rank_token_candidate: Ints
    top_reference: Ints
    top_candidate: Ints
    finite: Bools

    def __post_init__(self) -> None:
        length = np.asarray(self.kl).size
        for name in FIELDS:
            array = _column(name, getattr(self, name))
            if array.shape != (length,):
                raise ValueError(f"{name} has shape {array.shape}, ({length},) is needed")
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return self.kl.size

    @property
    def delta_p(self) -> NDArray[np.float64]:
        """Δp = q(x) − p(x)."""
        difference: NDArray[np.float64] = np.exp(self.logp_candidate.astype(np.float64))
        difference -= np.exp(self.logp_reference.astype(np.float64))
        return difference

    def select(self, index: ArrayLike) -> Self:
        """The values at a boolean mask or at integer indices."""
        chosen = _index(index)
        return type(self)(**{name: getattr(self, name)[chosen] for name in FIELDS})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One after the other; of no parts, empty."""
        if not parts:
            return cls(**{name: np.zeros(0, dtype=_dtype(name)) for name in FIELDS})
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS})

    def save(self, path: Path) -> None:
        """Write an .npz: all of it or, where this raises OSError (disk full), nothing."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        _atomically(path, lambda file: np.savez(file, layout=np.asarray(LAYOUT), **arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. FileNotFoundError where there is none, ValueError if it is damaged or foreign."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                layout, arrays = str(file["layout"]), {name: file[name] for name in FIELDS}
            if layout == LAYOUT:
                return cls(**arrays)
        except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path.name} does not hold token values: {error}") from error
        raise ValueError(f"{path.name} holds token values of another layout, {LAYOUT} is needed")

    def to_parquet(
        self,
        path: Path,
        positions: Positions,
        documents: Sequence[str],
        domains: Sequence[str],
        *,
        flags: Mapping[str, Bools] | None = None,
    ) -> None:
        """Write a Parquet file of one row a position, atomically.

        `documents` and `domains` give id and domain of each document index. Columns: document, domain, window,
        position, token_id, delta_p, every field of this class, and the `flags`, a Boolean each; a number that is not
        finite is null. ValueError if lengths differ.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if len(positions) != len(self):
            raise ValueError(f"{len(positions)} positions for {len(self)} values")

        def named(names: Sequence[str]) -> Any:
            return pa.DictionaryArray.from_arrays(pa.array(positions.document), pa.array(list(names), pa.string()))

        columns: dict[str, Any] = {
            "document": named(documents),
            "domain": named(domains),
            "window": positions.window,
            "position": positions.position,
            "token_id": positions.token_id,
            "delta_p": self.delta_p,
        } | {name: getattr(self, name) for name in FIELDS}
        for name, flag in (flags or {}).items():
            if flag.shape != (len(self),) or name in columns:
                raise ValueError(f"{name} has shape {flag.shape} for {len(self)} values, or is there twice")
            columns[name] = flag
        for name, column in columns.items():
            if isinstance(column, np.ndarray) and column.dtype.kind == "f":
                columns[name] = pa.array(column, mask=~np.isfinite(column))
        table = pa.table(columns).replace_schema_metadata({"layout": LAYOUT})
        _atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))


FIELDS: tuple[str, ...] = tuple(field.name for field in fields(TokenValues))


def _index(index: ArrayLike) -> NDArray[Any]:
    """A mask or indices; an empty list is no floats but no indices."""
    chosen = np.asarray(index)
    return chosen if chosen.size else np.zeros(0, dtype=np.intp)


def _dtype(name: str) -> np.dtype[Any]:
    """The type of a column where its values do not decide it."""
    if name in _BOOLEAN:
        return np.dtype(np.bool_)
    return np.dtype(_INTEGER.get(name, np.float32))


def _column(name: str, values: ArrayLike) -> NDArray[Any]:
    """The array in its column's type; a float where integers are meant (or the reverse) is an error, not a cast."""
    array, wanted = np.asarray(values), _dtype(name)
    if wanted.kind == "f" and array.dtype == np.float64:
        wanted = array.dtype
    if (array.dtype.kind == "f") != (wanted.kind == "f") or (array.dtype.kind == "b") != (wanted.kind == "b"):
        raise ValueError(f"{name} holds {array.dtype}, {wanted} is needed")
    return np.ascontiguousarray(array, dtype=wanted)


def _atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            write(file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
