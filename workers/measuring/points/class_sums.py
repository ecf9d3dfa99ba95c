"""A point's sums by window and token class: what shows for every setting of a sweep which kinds of token it damages.

They are kept as bytes and not as numbers one by one, as the sums of whole windows are: a point has a dozen classes, and
a sweep holds all of its points at once. A window and a class take 20 bytes.

Names: N usable positions, W windows of the corpus.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer

from app.contracts.base import Contract

Array = NDArray[np.float64]
_FLOATS: Final = np.dtype("<f8")
_COUNTS: Final = np.dtype("<u4")


def _from_text(given: object) -> object:
    return b64decode(given, validate=True) if isinstance(given, str) else given


Packed = Annotated[
    bytes,
    BeforeValidator(_from_text),
    PlainSerializer(lambda raw: b64encode(raw).decode("ascii"), return_type=str, when_used="json"),
]


class ClassSums(Contract):
    """Sums over the usable positions of each window whose predicted token is of one class, little-endian.

    `tokens` are uint32. `kl` is KL(reference‖candidate) and `log_ratio` ln of the reference's probability of the
    observed token minus ln of the candidate's, float64, in nats.
    """

    tokens: Packed
    kl: Packed
    log_ratio: Packed

    @property
    def tokens_W(self) -> NDArray[np.int64]:  # noqa: N802 - W is a shape
        """Usable positions of the class in each window."""
        return np.frombuffer(self.tokens, dtype=_COUNTS).astype(np.int64)

    @property
    def kl_W(self) -> Array:  # noqa: N802
        """Their summed KL."""
        return np.frombuffer(self.kl, dtype=_FLOATS).astype(np.float64)

    @property
    def log_ratio_W(self) -> Array:  # noqa: N802
        """Their summed log-ratio."""
        return np.frombuffer(self.log_ratio, dtype=_FLOATS).astype(np.float64)


def class_sums(
    kl_N: Array,
    log_ratio_N: Array,
    window_N: NDArray[np.integer],
    classes: Mapping[str, NDArray[np.bool_]],
    windows: int,
) -> dict[str, ClassSums]:
    """The sums of each class that some position is in, by its name; `classes` are masks (N,), which may overlap."""
    found = {}
    for name, mask_N in classes.items():
        if not mask_N.any():
            continue
        at = window_N[mask_N]
        kl_W, log_ratio_W = (
            np.bincount(at, weights=column_N[mask_N], minlength=windows) for column_N in (kl_N, log_ratio_N)
        )
        found[name] = ClassSums(
            tokens=np.bincount(at, minlength=windows).astype(_COUNTS).tobytes(),
            kl=kl_W.astype(_FLOATS).tobytes(),
            log_ratio=log_ratio_W.astype(_FLOATS).tobytes(),
        )
    return found
