"""Products of 16-bit numbers by way of float32, on any processor: `lacking` is told what it shall say."""

import copy
import gc
import platform
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from app.models.processor import has_bf16
from workers import products
from workers.products import WidenedLinear, lacking, made_up, product, projected, widen

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "lacking", lambda dtype: dtype in HALVES)


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rounded_once(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return exact.to(torch.float32).to(dtype)


@pytest.fixture
def anew() -> Iterator[None]:
    """This machine's processor is asked again, before and after."""
    for one in (lacking, made_up):
        one.cache_clear()
    yield
    for one in (lacking, made_up):
        one.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="features are those of x86")
def test_of_this_machine_it_says_what_the_system_does(anew: None) -> None:
    assert not lacking(torch.float32)
    assert not lacking(torch.float64)
    able = torch.cpu.get_capabilities()
    if able["avx512_f"] or not able["avx_ne_convert"]:
        assert lacking(torch.bfloat16) is not has_bf16()


@pytest.mark.parametrize(
    ("flags", "made_by_onednn", "lacks"),
    [
        ({"avx512_f", "avx512_bf16"}, True, False),
        ({"avx512_f", "amx_bf16"}, True, False),
        ({"avx512_f"}, True, True),  # Skylake to Ice Lake: made up of other instructions, and slower than float32
        ({"avx2"}, False, True),
        ({"avx2", "avx_ne_convert"}, True, False),
    ],
)
def test_products_of_bf16_lack_where_the_processor_has_no_instructions_for_them(
    anew: None, monkeypatch: pytest.MonkeyPatch, flags: set[str], made_by_onednn: bool, lacks: bool
) -> None:
    monkeypatch.setattr(products.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(flags, True))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: made_by_onednn)
    assert lacking(torch.bfloat16) is lacks
    assert made_up(torch.bfloat16) is (lacks and made_by_onednn), "of other instructions"
    assert not made_up(torch.float32)


def test_other_processors_than_x86_are_left_alone(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    assert not lacking(torch.bfloat16)
    assert not made_up(torch.bfloat16)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_is_the_exact_one_rounded_once(without: None, dtype: torch.dtype) -> None:
    """Of float64, but for the few that lie next to the middle of two 16-bit numbers."""
    left, right = drawn(40, 96, dtype=dtype), drawn(96, 64, dtype=dtype, seed=1)
    exact = left.double() @ right.double()
    made = product(left, right)
    assert made.dtype == dtype
    wanted = rounded_once(exact, dtype)
    assert (made == wanted).float().mean() > 0.995
    step = torch.finfo(dtype).eps * wanted.abs().float()
    assert ((made.float() - wanted.float()).abs() <= step + 1e-6).all()


def test_where_the_processor_can_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "lacking", lambda _: False)
    left, right = drawn(8, 16, dtype=torch.bfloat16), drawn(16, 4, dtype=torch.bfloat16, seed=1)
    assert torch.equal(product(left, right), left @ right)
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.bfloat16))
    widen(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_projected_and_its_gradients_are_exact_and_rounded(without: None, dtype: torch.dtype) -> None:
    x, weight = drawn(2, 5, 48, dtype=dtype), drawn(24, 48, dtype=dtype, seed=1)
    given = [one.clone().requires_grad_() for one in (x, weight)]
    exact = [one.double().requires_grad_() for one in (x, weight)]
    slope = drawn(2, 5, 24, dtype=dtype, seed=2)
    made, wanted = projected(*given), exact[0] @ exact[1].T
    made.backward(slope)
    wanted.backward(slope.double())
    assert (made.dtype, made.shape) == (dtype, (2, 5, 24))
    assert (made == rounded_once(wanted.detach(), dtype)).float().mean() > 0.99
    for one, other in zip(given, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad == rounded_once(other.grad, dtype)).float().mean() > 0.99


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_widened_layer_gives_the_exact_result_rounded_once(without: None, dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 24, bias=bias, dtype=dtype)
    widen(model := nn.Sequential(layer))
    assert type(model[0]) is WidenedLinear
    x = drawn(2, 5, 48, dtype=dtype)
    exact = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    made = model(x)
    assert (made.dtype, made.shape) == (dtype, (2, 5, 24))
    assert (made == rounded_once(exact, dtype)).float().mean() > 0.99


def test_a_copy_has_weights_of_its_own_and_a_model_that_is_dropped_goes_at_once(without: None) -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False, dtype=torch.bfloat16))
    widen(model)
    twin = copy.deepcopy(model)
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    before = twin(x)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(twin(x), before) and not model(x).any()
    gone = weakref.ref(model[0].weight)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
