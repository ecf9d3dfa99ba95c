"""The head of each architecture against transformers' own logits; what cannot be reproduced is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.copies import copier
from tests.support.second_device import second_device
from tests.support.tiny import CONFIGS, make_tokenizer
from workers.distributions.head import KNOWN, Head

Tiny = Callable[..., Path]
# Beyond the shared tiny models: the ones that multiply.
OTHERS: dict[str, dict[str, Any]] = {
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},
    "gemma3_text": {"model_type": "gemma3_text", "final_logit_softcapping": 12.0, "head_dim": 32},
    "granitemoe": {"model_type": "granitemoe", "logits_scaling": 3.0},
}


def build(folder: Path, model_type: str, **fields: Any) -> Path:
    """A tiny random-weight checkpoint of an architecture that the shared fixture has not."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=1,
        **fields,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def states_and_logits(checkpoint: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states, after the final norm, and logits, both of transformers in float32."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = torch.arange(2, 50)[None]
    with torch.inference_mode():
        return model.model(tokens).last_hidden_state[0], model(tokens).logits[0]


def assert_reproduced(checkpoint: Path) -> Head:
    hidden_TD, logits_TV = states_and_logits(checkpoint)
    head = Head.load(checkpoint)
    assert head.vocabulary == logits_TV.shape[1]
    assert torch.allclose(head.logits(hidden_TD), logits_TV, rtol=1e-4, atol=1e-4)
    assert float(logits_TV.std()) > 0.1  # else nothing was compared
    return head


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_those_of_transformers(tiny: Tiny, kind: str) -> None:
    head = assert_reproduced(tiny(kind))
    assert head.weight_VD.dtype == torch.bfloat16
    assert head.softcap == CONFIGS[kind].get("final_logit_softcapping")
    assert head.scale == 1 / CONFIGS[kind].get("logits_scaling", 1)


@pytest.mark.parametrize("kind", OTHERS)
def test_logits_of_scaled_and_capped_heads_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    head = assert_reproduced(build(tmp_path / kind, **OTHERS[kind]))
    assert (head.scale, head.softcap) != (1.0, None)


@pytest.mark.parametrize("architecture", sorted(KNOWN))
def test_absent_fields_mean_what_the_architecture_s_class_says(architecture: str) -> None:
    """A configuration written by hand may leave out what the class takes for granted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    (model_type,) = (name for name, known in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items() if known == architecture)
    defaults = AutoConfig.for_model(model_type)
    treatment = KNOWN[architecture]
    for field in (treatment.times, treatment.over, treatment.cap):
        if field is not None:
            # Where the class has no such field, vLLM takes 1.
            assert field.default == getattr(defaults, field.name, 1.0), field.name


def make_up(
    folder: Path, *, rows: int = 40, config: dict[str, Any] | None = None, **tensors: torch.Tensor | None
) -> Path:
    """A checkpoint of an architecture that nobody knows: 33 tokens, width 16."""
    folder.mkdir()
    fields = {
        "architectures": ["MadeUpForCausalLM"],
        "model_type": "made_up",
        "vocab_size": 33,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(fields | (config or {})))
    generator = torch.Generator().manual_seed(0)
    stored: dict[str, torch.Tensor | None] = {
        "model.norm.weight": torch.ones(16),
        "lm_head.weight": torch.randn(rows, 16, generator=generator),
        "model.layers.0.weight": torch.randn(16, 16, generator=generator),
    }
    stored |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in stored.items() if tensor is not None}, folder / "model.safetensors")
    return folder


def refusal(checkpoint: Path) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        Head.load(checkpoint)
    return caught.value


def test_an_unknown_architecture_with_an_ordinary_head_is_taken_as_it_stands(tmp_path: Path) -> None:
    """Rows beyond the vocabulary are padding; a bias is one."""
    folder = make_up(tmp_path / "made-up", rows=40, lm_head__bias=torch.linspace(-1, 1, 40))
    stored = load_file(folder / "model.safetensors")
    head = Head.load(folder)
    assert torch.equal(head.weight_VD, stored["lm_head.weight"][:33].bfloat16())
    assert head.bias_V is not None
    assert torch.equal(head.bias_V, stored["lm_head.bias"][:33].bfloat16().float())
    hidden_TD = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    expected = hidden_TD @ head.weight_VD.float().T + head.bias_V
    assert torch.allclose(head.logits(hidden_TD), expected, atol=1e-5)


@pytest.mark.parametrize(
    "field",
    [
        {"logit_scale": 0.5},
        {"logits_scaling": 8.0},
        {"final_logit_softcapping": 30.0},
        {"lm_head_multiplier": 0.1},
        {"dim_model_base": 256},
        {"norm_head": True},
        {"mup_width_scale": 2.0},
        {"output_multiplier": 0.2},
    ],
)
def test_an_unknown_architecture_that_hints_at_more_is_refused_by_the_hint(
    tmp_path: Path, field: dict[str, Any]
) -> None:
    error = refusal(make_up(tmp_path / "made-up", config=field))
    assert error.code == ErrorCode.HEAD_UNSUPPORTED
    assert next(iter(field)) in error.detail
    assert error.hint


@pytest.mark.parametrize(
    "field",
    [{"logit_scale": 1.0}, {"final_logit_softcapping": None}, {"attn_logit_softcapping": 50.0}, {"norm_head": False}],
)
def test_a_hint_that_says_nothing_is_no_reason(tmp_path: Path, field: dict[str, Any]) -> None:
    assert Head.load(make_up(tmp_path / "made-up", config=field)).scale == 1.0


@pytest.mark.parametrize(
    ("config", "tensors", "code", "said"),
    [
        ({}, {"model__norm__weight": None}, ErrorCode.HEAD_UNSUPPORTED, "norm"),
        ({}, {"lm_head__weight": None}, ErrorCode.CHECKPOINT_INCOMPLETE, "lm_head.weight"),
        ({"tie_word_embeddings": True}, {"lm_head__weight": None}, ErrorCode.HEAD_UNSUPPORTED, ""),
        ({}, {"lm_head__weight": torch.ones(32, 16)}, ErrorCode.CHECKPOINT_SHAPE_MISMATCH, "(32, 16)"),
        ({}, {"lm_head__weight": torch.ones(33, 15)}, ErrorCode.CHECKPOINT_SHAPE_MISMATCH, "(33, 15)"),
        (
            {},
            {"lm_head__weight": torch.ones(33, 16, dtype=torch.int8), "model__layers__0__weight": torch.ones(64, 16)},
            ErrorCode.HEAD_UNSUPPORTED,
            "",
        ),
    ],
    ids=["no norm", "no head", "tied to an embedding of no known name", "rows", "width", "integers without a scale"],
)
def test_a_head_that_cannot_be_reproduced_is_refused(
    tmp_path: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor | None], code: ErrorCode, said: str
) -> None:
    error = refusal(make_up(tmp_path / "made-up", config=config, **tensors))
    assert error.code == code
    assert said in error.detail


@pytest.mark.parametrize("copied", [True, False])
def test_the_second_matrix_of_a_tied_head_must_be_a_copy_of_the_first(tiny: Tiny, tmp_path: Path, copied: bool) -> None:
    folder = copier(tiny, tmp_path)()
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file(tensors | {"lm_head.weight": embedding.clone() if copied else -embedding}, folder / "model.safetensors")
    if copied:
        assert torch.equal(Head.load(folder).weight_VD, embedding)
    else:
        error = refusal(folder)
        assert error.code == ErrorCode.CHECKPOINT_UNSUPPORTED
        assert "tie_word_embeddings" in error.hint


@pytest.mark.parametrize(
    ("kind", "field", "value", "code", "said"),
    [
        *(
            ("granite", "logits_scaling", value, ErrorCode.CHECKPOINT_CORRUPT, "logits_scaling")
            for value in ("four", True, [4.0])
        ),
        ("granite", "logits_scaling", 0, ErrorCode.HEAD_UNSUPPORTED, "divisor 0.0"),
        ("gemma2", "final_logit_softcapping", -1, ErrorCode.HEAD_UNSUPPORTED, "soft cap -1.0"),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(
    tmp_path: Path, tiny: Tiny, kind: str, field: str, value: object, code: ErrorCode, said: str
) -> None:
    error = refusal(edited(tiny(kind), tmp_path / "edited", {field: value}))
    assert error.code == code
    assert said in error.detail


def edited(
    source: Path,
    folder: Path,
    config: dict[str, Any] | None = None,
    change: Callable[[dict[str, torch.Tensor]], None] = lambda _: None,
) -> Path:
    """A copy of a checkpoint with other fields or tensors."""
    folder.mkdir()
    fields = json.loads((source / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(fields))
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_the_fingerprint_is_of_norm_head_and_scale_and_of_nothing_else(tmp_path: Path, tiny: Tiny) -> None:
    source = tiny("granite")
    own = Head.load(source).fingerprint

    def touch(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[name][0] += 1

        return change

    assert Head.load(edited(source, tmp_path / "same")).fingerprint == own
    layer = touch("model.layers.1.mlp.down_proj.weight")
    assert Head.load(edited(source, tmp_path / "layer", change=layer)).fingerprint == own
    norm = touch("model.norm.weight")
    head = touch("model.embed_tokens.weight")
    others = {
        Head.load(edited(source, tmp_path / "norm", change=norm)).fingerprint,
        Head.load(edited(source, tmp_path / "head", change=head)).fingerprint,
        Head.load(edited(source, tmp_path / "scale", {"logits_scaling": 5.0})).fingerprint,
    }
    assert len(others - {own}) == 3


def test_the_head_is_held_in_the_engine_s_dtype(tmp_path: Path) -> None:
    folder = make_up(tmp_path / "made-up")
    exact = load_file(folder / "model.safetensors")["lm_head.weight"][:33]
    single = Head.load(folder, dtype=torch.float32)
    assert torch.equal(single.weight_VD, exact)
    assert torch.equal(Head.load(folder).weight_VD, exact.bfloat16())
    assert single.fingerprint != Head.load(folder).fingerprint


def packed(folder: Path, *, bits: int, strategy: str, symmetric: bool, activations: bool = False) -> torch.Tensor:
    """Writes a made-up checkpoint whose head compressed-tensors has packed; returns the weight that it stands for."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    group = {"group_size": 16} if strategy == "group" else {}
    weights = {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": symmetric, **group}
    scheme = {
        "targets": ["re:.*lm_head"],
        "weights": weights,
        "input_activations": {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
        if activations
        else None,
    }
    form = "int-quantized" if activations else "pack-quantized"
    quantization = {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": [],
    }
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    groups = weight.view(64, -1, 16 if strategy == "group" else 32)
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    steps = 2**bits - 1
    scale = groups.abs().amax(2) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / steps
    zero = torch.zeros_like(scale) if symmetric else (-(2 ** (bits - 1)) - low / scale).round()
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}
    compressor = BaseCompressor.get_value_from_registry(form)
    stored = compressor.compress(state, QuantizationScheme.model_validate(scheme))
    lowest = -(2 ** (bits - 1))
    integers = (groups / scale[:, :, None] + zero[:, :, None]).round().clamp(lowest, lowest + steps)
    make_up(
        folder,
        config={"vocab_size": 64, "hidden_size": 32, "quantization_config": quantization},
        model__norm__weight=torch.ones(32),
        **{"lm_head__weight": None} | {f"lm_head__{name}": tensor for name, tensor in stored.items()},
    )
    return ((integers - zero[:, :, None]) * scale[:, :, None]).view(64, 32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("strategy", ["group", "channel"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_packed_head_is_unpacked(tmp_path: Path, bits: int, strategy: str, symmetric: bool) -> None:
    meant = packed(tmp_path / "packed", bits=bits, strategy=strategy, symmetric=symmetric)
    assert torch.allclose(Head.load(tmp_path / "packed", dtype=torch.float32).weight_VD, meant, atol=1e-6)


def test_a_head_that_quantizes_its_input_is_refused(tmp_path: Path) -> None:
    """It is no linear map of the hidden state."""
    packed(tmp_path / "packed", bits=8, strategy="channel", symmetric=True, activations=True)
    error = refusal(tmp_path / "packed")
    assert error.code == ErrorCode.HEAD_UNSUPPORTED
    assert "hidden state" in error.detail


def test_the_same_matrix_is_recognised_whatever_else_differs(tiny: Tiny) -> None:
    head = Head.load(tiny("llama"))
    assert head.same_matrix(replace(head, weight_VD=head.weight_VD.clone(), scale=2.0))
    assert not head.same_matrix(replace(head, weight_VD=head.weight_VD + 1))
    assert not head.same_matrix(replace(head, weight_VD=head.weight_VD[:, :-1]))


def test_logits_on_a_device_are_those_of_the_host(tiny: Tiny) -> None:
    head = Head.load(tiny("gemma2"))
    hidden_TD = torch.randn(5, head.hidden_size, generator=torch.Generator().manual_seed(0)).bfloat16()
    with second_device() as device:
        there = head.on(device, torch.float32).logits(hidden_TD)
        assert there.device == device
        assert torch.equal(there.cpu(), head.logits(hidden_TD))
