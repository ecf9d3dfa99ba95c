"""What dynamic quantization scaling is refused for, before anything is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe, quantize
from app.models.steps.dynamic import widths
from app.recipes.recipe import Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def step(**fields: Any) -> dict[str, Any]:
    return {"type": "quantize.dynamic", "bits": 4, "group_size": 32} | fields


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`on("cpu")`: as where the vLLM of these devices is installed."""
    return lambda *devices: monkeypatch.setattr(quantize, "served_devices", lambda: devices)


@pytest.mark.parametrize(
    ("kind", "fields", "code", "pointer"),
    [
        ("llama", {"group_size": 48}, ErrorCode.GROUP_SIZE_MISMATCH, "/group_size"),
        ("llama", {"modules": ["embed_tokens"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/modules"),
        ("llama", {"modules": ["c_proj"]}, ErrorCode.UNKNOWN_MODULE, "/modules/0"),
        ("llama", {"bits": 3, "form": "packed"}, ErrorCode.PACKING_UNSUPPORTED, "/bits"),
        ("llama", {"mixed": True, "bits": 2.5}, ErrorCode.RECIPE_NOT_APPLICABLE, "/bits"),
        ("llama", {"mixed": True, "bits": 3.5, "form": "packed"}, ErrorCode.PACKING_UNSUPPORTED, "/bits"),
        ("llama", {"mixed": True, "bits": 4.5, "form": "packed"}, ErrorCode.PACKING_UNSUPPORTED, "/bits"),
        ("llama", {"activation_bits": 4, "form": "packed"}, ErrorCode.PACKING_UNSUPPORTED, "/activation_bits"),
        (
            "llama",
            {"activation_bits": 4, "form": "packed", "mixed": True},
            ErrorCode.PACKING_UNSUPPORTED,
            "/form",
        ),
        ("llama", {"activation_bits": 8, "form": "packed"}, ErrorCode.PACKING_UNSUPPORTED, "/symmetric"),
        (
            "llama",
            {"activation_bits": 8, "form": "packed", "symmetric": True, "bits": 8},
            ErrorCode.PACKING_UNSUPPORTED,
            "/group_size",
        ),
        (
            "llama",
            {"activation_bits": 8, "form": "packed", "symmetric": True, "group_size": 16},
            ErrorCode.PACKING_UNSUPPORTED,
            "/group_size",
        ),
        ("llama", {"activation_bits": 8, "modules": ["q_proj"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/modules"),
        ("llama", {"form": "packed", "modules": ["up_proj"]}, ErrorCode.PACKING_UNSUPPORTED, "/modules"),
        ("mixtral", {}, ErrorCode.RECIPE_NOT_APPLICABLE, ""),
    ],
)
def test_refused(tiny: Callable[..., Path], kind: str, fields: dict[str, Any], code: ErrorCode, pointer: str) -> None:
    with pytest.raises(HemostatError) as refused:
        check_recipe(inspect(tiny(kind)), RECIPE.validate_python([step(**fields)]), pointer="/recipe")
    assert refused.value.code == code
    assert refused.value.pointer == f"/recipe/0{pointer}"
    assert refused.value.hint


def test_what_is_packed_takes_no_further_change(tiny: Callable[..., Path]) -> None:
    recipe = RECIPE.validate_python([step(form="packed"), {"type": "prune.magnitude", "sparsity": 0.5}])
    with pytest.raises(HemostatError, match="packed"):
        check_recipe(inspect(tiny("llama")), recipe, pointer="/recipe")


def test_widths_are_those_that_a_kernel_takes_where_the_result_is_packed(on: Callable[..., None]) -> None:
    on("cpu")
    recipe = RECIPE.validate_python(
        [
            step(mixed=True, bits=4.5),
            step(mixed=True, bits=6, form="packed", activation_bits=8, symmetric=True, group_size=None),
            step(bits=3),
        ]
    )
    assert [widths(one) for one in recipe] == [(3, 4, 5, 6, 8), (4, 8), (3,)]  # type: ignore[arg-type]


WEIGHTS = step(mixed=True, bits=5.5, form="packed", symmetric=True)
WITH_INPUTS = WEIGHTS | {"activation_bits": 8, "group_size": None}


@pytest.mark.parametrize(
    ("devices", "fields", "served", "scheme"),
    [
        (("cpu",), WITH_INPUTS, (4, 8), "w4a8"),
        (("cuda",), WEIGHTS, (4, 8), "w4a16"),
        (("cuda",), WITH_INPUTS | {"bits": 8}, (8,), "w8a8"),
        (("cpu", "cuda"), WEIGHTS, (4, 8), "w4a16"),
        (("cpu", "cuda"), WITH_INPUTS, (4, 8), "w4a8"),
    ],
)
def test_a_packed_mixture_has_the_widths_that_the_device_has_kernels_for(
    tiny: Callable[..., Path],
    on: Callable[..., None],
    devices: tuple[str, ...],
    fields: dict[str, Any],
    served: tuple[int, ...],
    scheme: str,
) -> None:
    on(*devices)
    (recipe,) = RECIPE.validate_python([fields])
    assert widths(recipe) == served  # type: ignore[arg-type]
    assert check_recipe(inspect(tiny("llama")), (recipe,), pointer="/recipe").scheme == scheme


@pytest.mark.parametrize(
    ("devices", "fields"),
    [
        (("cpu",), WEIGHTS),
        (("cuda",), WITH_INPUTS),
        (("cuda",), WEIGHTS | {"symmetric": False}),
        (("cpu", "cuda"), WEIGHTS | {"symmetric": False}),
    ],
)
def test_a_packed_mixture_is_refused_where_the_device_has_a_kernel_for_one_width_alone(
    tiny: Callable[..., Path], on: Callable[..., None], devices: tuple[str, ...], fields: dict[str, Any]
) -> None:
    on(*devices)
    with pytest.raises(HemostatError) as refused:
        check_recipe(inspect(tiny("llama")), RECIPE.validate_python([fields]), pointer="/recipe")
    assert (refused.value.code, refused.value.pointer) == (ErrorCode.PACKING_UNSUPPORTED, "/recipe/0/bits")
