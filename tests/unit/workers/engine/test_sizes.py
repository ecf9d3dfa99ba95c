from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.divergences import PRECISIONS
from workers import products
from workers.calibration.online.scoring import Scorer
from workers.distributions import divergence
from workers.distributions.divergence import Precision
from workers.distributions.head import Head
from workers.engine.sizes import (
    divergence_bytes,
    kv_cache_bytes,
    scorer_bytes,
    single_row_bytes,
    step_tokens,
    weight_bytes,
)

Tiny = Callable[..., Path]


@pytest.fixture
def lacks(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether this processor has 16-bit products."""
    return lambda none: monkeypatch.setattr(products, "lacking", lambda dtype: none and dtype != torch.float32)


def test_a_step_is_shorter_for_a_larger_model_and_never_longer_than_allowed(
    tiny: Tiny, lacks: Callable[[bool], None]
) -> None:
    info = inspect(tiny("llama"))
    layer = info.tensors["model.norm.weight"]

    def of(parameters: int) -> int:
        return step_tokens(replace(info, tensors={"w": replace(layer, shape=(parameters,))}), 4096, "cpu")

    lacks(True)
    assert [of(135_000_000), of(1_000_000_000)] == [740, 128], "where a product takes several times as long"
    lacks(False)
    assert of(135_000_000) == 3703
    assert of(1_000_000_000) == 500
    assert of(70_000_000_000) == 128
    assert of(1) == 4096
    assert step_tokens(info, 4096, "cuda") == 4096


def test_the_cache_holds_a_step_and_at_least_what_the_settings_say(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    per_token = 3 * 2 * 32 * 2
    small = Settings(engine_kv_cache_bytes=1024 * 1024)
    assert kv_cache_bytes(info, small, "bfloat16", 4096) == (4096 + 8 * 128) * per_token
    assert kv_cache_bytes(info, small, "float32", 4096) == (4096 + 8 * 128) * per_token * 2
    assert kv_cache_bytes(info, Settings(engine_kv_cache_bytes=1 << 30), "bfloat16", 4096) == 1 << 30


def test_plain_weights_are_counted_in_the_engines_dtype(tiny: Tiny, lacks: Callable[[bool], None]) -> None:
    info = inspect(tiny("llama-untied"))
    weights = sum(tensor.elements for tensor in info.tensors.values())
    lacks(False)
    assert weight_bytes(info, "bfloat16", "cpu", head=True) == 2 * weights
    assert weight_bytes(info, "float32", "cpu", head=True) == 4 * weights


@pytest.mark.parametrize("kind", ["llama", "llama-untied"])
def test_what_is_multiplied_counts_as_float32_where_the_processor_multiplies_so(
    tiny: Tiny, lacks: Callable[[bool], None], kind: str
) -> None:
    """The output matrix is packed beside itself: tied or not, its rows are looked up, or kept for the next weights."""
    info = inspect(tiny(kind))
    sizes = {name: tensor.elements for name, tensor in info.tensors.items()}
    linear = sum(size for name, size in sizes.items() if name.endswith("_proj.weight"))
    rest = sum(sizes.values()) - linear
    head = sizes["model.embed_tokens.weight"]
    lacks(True)
    assert weight_bytes(info, "bfloat16", "cpu", head=False) == 4 * linear + 2 * rest
    assert weight_bytes(info, "bfloat16", "cpu", head=True) == 4 * linear + 2 * rest + 4 * head
    assert weight_bytes(info, "float32", "cpu", head=True) == 4 * sum(sizes.values())
    assert weight_bytes(info, "bfloat16", "cuda", head=True) == 2 * sum(sizes.values())


def test_experts_are_multiplied_by_kernels_of_their_own_in_the_engines_dtype(
    tiny: Tiny, lacks: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(tiny("mixtral"))
    sizes = {name: tensor.elements for name, tensor in info.tensors.items()}
    linear = sum(size for name, size in sizes.items() if "self_attn" in name or name.endswith(".gate.weight"))
    assert any(".experts." in name for name in sizes)
    lacks(True)
    assert weight_bytes(info, "bfloat16", "cpu", head=False) == 2 * (sum(sizes.values()) + linear)
    monkeypatch.setattr(products, "made_up", lambda dtype: dtype == torch.bfloat16)
    assert single_row_bytes(info, "bfloat16", "cpu") == 2 * (linear + sizes["lm_head.weight"])


@pytest.mark.parametrize("kind", ["llama", "llama-untied"])
def test_weights_for_single_rows_are_those_that_are_multiplied_once_more_in_16_bits(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    info = inspect(tiny(kind))
    sizes = {name: tensor.elements for name, tensor in info.tensors.items()}
    multiplied = sum(size for name, size in sizes.items() if name.endswith("_proj.weight"))
    multiplied += sizes["model.embed_tokens.weight"]
    monkeypatch.setattr(products, "made_up", lambda dtype: dtype == torch.bfloat16)
    assert single_row_bytes(info, "bfloat16", "cpu") == 2 * multiplied
    assert single_row_bytes(info, "float32", "cpu") == 0
    assert single_row_bytes(info, "bfloat16", "cuda") == 0
    assert single_row_bytes(replace(info, quantization={"format": "pack-quantized"}), "bfloat16", "cpu") == 0
    monkeypatch.setattr(products, "made_up", lambda _: False)
    assert single_row_bytes(info, "bfloat16", "cpu") == 0


def test_packed_weights_count_as_they_are_packed(tiny: Tiny) -> None:
    info = replace(inspect(tiny("llama")), quantization={"format": "pack-quantized"})
    assert weight_bytes(info, "bfloat16", "cpu", head=True) == info.bytes


def head(vocabulary: int, width: int, value: int) -> Head:
    """One number, of which the host holds no copy."""
    return Head(torch.tensor(value, dtype=torch.bfloat16).expand(vocabulary, width), None, 1.0, None, "one number")


def bytes_on_meta(*holders: Any) -> int:
    """Of the tensors there that are attributes, and of the heads among these; each counts once."""
    values = [one for holder in holders for one in vars(holder).values()]
    tensors = [one.weight_VD if isinstance(one, Head) else one for one in values]
    there = [one for one in tensors if isinstance(one, torch.Tensor) and one.device.type == "meta"]
    return sum(one.nbytes for one in {id(one): one for one in there}.values())


PAIRS = {"same": (128, 0), "differ": (128, 1), "widths differ": (64, 0)}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(divergence.CHUNK, "meta", divergence.CHUNK["cuda"])


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("vocabulary", [128_000, 152_064])
def test_a_divergence_takes_what_is_left_for_it_on_a_gpu(vocabulary: int, pair: str, precision: Precision) -> None:
    one, other = head(vocabulary, 128, 0), head(vocabulary, *PAIRS[pair])
    made = divergence.Divergence(one, other, precision=precision, device="meta")
    candidate = None if pair == "same" else other
    found = divergence_bytes(one, "cuda", candidate=candidate, precision=precision)
    assert found == pytest.approx(bytes_on_meta(made), rel=0.01)
    assert divergence_bytes(one, "cpu", candidate=candidate) == 0


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("pair", PAIRS)
def test_the_scores_of_served_requests_take_what_the_shadow_leaves_for_them(pair: str) -> None:
    one, other = head(128_000, 128, 0), head(128_000, *PAIRS[pair])
    made = Scorer(one, other, device="meta")
    found = scorer_bytes(one, other, "cuda", "bfloat16", same=pair == "same")
    assert found == pytest.approx(bytes_on_meta(made, made._divergence, made._same), rel=0.01)
    assert scorer_bytes(one, other, "cpu", "bfloat16", same=False) == 0
