"""What the forms of two models mean for parts that are swapped between them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.models.checkpoint import inspect
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.job import _Attribute
from workers.measuring.sides import Side, Sides

PACKED = ("w4a16", {"quant_method": "compressed-tensors"})
PLAIN = ("bf16", None)


@pytest.mark.parametrize(
    ("reference", "candidate", "told"),
    [
        (PLAIN, PLAIN, []),
        (PLAIN, PACKED, ["candidate"]),
        (PACKED, PLAIN, ["reference"]),
        (PACKED, PACKED, ["reference", "candidate"]),
    ],
)
def test_whose_weights_were_dequantized_for_the_swaps_is_told(
    tiny: Callable[..., Path], reference: Any, candidate: Any, told: list[str]
) -> None:
    info, nothing = inspect(tiny("llama")), cast("Any", None)
    one, other = (
        Side("tiny", replace(info, scheme=scheme, quantization=quantization), "0", info.path)
        for scheme, quantization in (reference, candidate)
    )
    found = cast("Found", SimpleNamespace(not_swapped="", internals=None))
    said = _Attribute._warnings(Sides(one, other, nothing, "bfloat16", ""), found)
    assert [words.split("'s weights are packed (w4a16)")[0] for words in said] == [f"The {name}" for name in told]
