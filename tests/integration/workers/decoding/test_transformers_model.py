"""A checkpoint under transformers: rows that grow are what whole texts give, and decoders are what `generate` does."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig
from transformers.utils.logging import is_progress_bar_enabled

from app.contracts import blocks
from app.contracts.decoding import DECODER, Beam, Contrastive, Decoder, Greedy, Shaping
from app.contracts.errors import ErrorCode
from app.contracts.simulation import SECTION
from tests.support.copies import edit_json
from tests.support.packed import make_packed
from tests.support.refusals import refused
from workers.decoding.loop import decode
from workers.decoding.transformers_model import TransformersModel
from workers.decoding.truncation import shaped
from workers.distributions.head import Head

Tiny = Callable[..., Path]
PROMPTS = [[5, 6, 7, 8, 9], [10, 11, 12], [20, 21, 22, 23, 24, 25, 26], [3]]
# One token in eight ends a text, so that searches meet ends.
ENDS = list(range(0, 320, 8))
CONTRASTIVE = Path(__file__).parent / "golden" / "contrastive.json"


@pytest.fixture(scope="module")
def packed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("packed")
    return lambda scheme: make_packed(tiny("llama"), root / scheme, scheme)


@pytest.fixture(scope="module", params=["llama", "gemma2", "granite", "qwen2"])
def model(tiny: Tiny, request: pytest.FixtureRequest) -> Iterator[TransformersModel]:
    yield TransformersModel(tiny(request.param), device="cpu", dtype=torch.float32)


def _whole(model: TransformersModel, text: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, hidden states) of a text read at once and alone."""
    with torch.no_grad():
        output = model.model(torch.tensor([text]), output_hidden_states=True, use_cache=False)
    return output.logits[0], output.hidden_states[-1][0]


def _generate(model: TransformersModel, prompt: list[int], **options: Any) -> Any:
    config = cast(Any, GenerationConfig)(eos_token_id=ENDS, pad_token_id=1, max_new_tokens=16, **options)
    with torch.no_grad():
        return model.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            generation_config=config,
        )


def test_loading_draws_no_progress_bar(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny("llama")
    capfd.readouterr()
    TransformersModel(checkpoint, device="cpu", dtype=torch.float32)
    assert "%|" not in capfd.readouterr().err
    assert is_progress_bar_enabled()


@pytest.mark.parametrize("chunk", [4, 1024])
def test_rows_that_grow_split_and_go_are_what_whole_texts_give(
    model: TransformersModel, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(model, "step_tokens", chunk)
    session = model.open(PROMPTS)
    texts = [list(prompt) for prompt in PROMPTS]

    def check() -> None:
        for row, text in enumerate(texts):
            logits, hidden = _whole(model, text)
            torch.testing.assert_close(session.step.logits_RV[row], logits[-1], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(session.step.hidden_RD[row], hidden[-1], rtol=1e-3, atol=1e-3)

    check()
    for prompt, hidden_LD in zip(PROMPTS, session.prompt_hidden, strict=True):
        torch.testing.assert_close(hidden_LD, _whole(model, prompt)[1], rtol=1e-3, atol=1e-3)
    for parents in ([0, 1, 2, 3], [3, 0, 0, 2, 1, 1], [5, 1]):
        tokens = [30 + 7 * parent + row for row, parent in enumerate(parents)]
        session.next(tokens, parents)
        texts = [[*texts[parent], token] for token, parent in zip(tokens, parents, strict=True)]
        check()
    session.keep([1])
    texts = [texts[1]]
    check()
    session.next([99], [0])
    texts = [[*texts[0], 99]]
    check()


def test_the_hidden_state_is_what_the_head_takes(model: TransformersModel) -> None:
    step = model.open(PROMPTS).step
    head = Head.load(model.info.path, dtype=torch.float32)

    torch.testing.assert_close(head.logits(step.hidden_RD), step.logits_RV, rtol=1e-3, atol=1e-3)


def test_greedy_and_beam_search_give_what_generate_gives(model: TransformersModel) -> None:
    ended = 0
    for decoder in (
        Greedy(),
        Beam(name="beam", beams=2),
        Beam(name="beam", beams=4),
        Beam(name="beam", beams=5, length_penalty=0.0),
        Beam(name="beam", beams=3, length_penalty=1.8),
    ):
        made = decode(model, PROMPTS, decoder, max_tokens=16, ends=frozenset(ENDS))

        options: dict[str, Any] = {"do_sample": False}
        if isinstance(decoder, Beam):
            options |= {"num_beams": decoder.beams, "length_penalty": decoder.length_penalty}
        theirs = [_generate(model, prompt, **options)[0, len(prompt) :].tolist() for prompt in PROMPTS]
        assert [list(one.tokens) for one in made] == theirs, decoder
        ended += sum(one.ended for one in made)
    assert ended  # the ends were met


def _counted(number: int, like: torch.Tensor) -> torch.Tensor:
    """Weights that no generator of random numbers has a part in; those of a norm are around 1."""
    place = torch.arange(like.numel())
    spread = ((31 * place * place + (7919 + 104729 * number) * place) % 10007).double() / 10007 - 0.5
    spread = spread.reshape(like.shape) / 2
    return (spread if like.ndim > 1 else 1 + spread).to(torch.bfloat16)


def test_contrastive_search_gives_what_generate_gave(tiny: Tiny, tmp_path: Path) -> None:
    """The texts are those of `generate(penalty_alpha=…, top_k=…)` of transformers 4.51.3 on the same weights; later
    releases have no contrastive search."""
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "counted"))
    tensors = load_file(folder / "model.safetensors")
    counted = {name: _counted(number, tensors[name]) for number, name in enumerate(sorted(tensors))}
    save_file(counted, folder / "model.safetensors", metadata={"format": "pt"})
    model = TransformersModel(folder, device="cpu", dtype=torch.float32)
    for golden in json.loads(CONTRASTIVE.read_text()):
        decoder = Contrastive(name="contrastive", k=golden["k"], alpha=golden["alpha"])
        made = decode(model, PROMPTS, decoder, max_tokens=16)
        assert [list(one.tokens) for one in made] == golden["texts"], decoder


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ({"name": "temperature", "temperature": 0.7}, {"temperature": 0.7}),
        ({"name": "top_p", "p": 0.8}, {"top_p": 0.8}),
        ({"name": "top_k", "k": 9, "temperature": 1.4}, {"top_k": 9, "temperature": 1.4}),
        ({"name": "min_p", "p": 0.07}, {"min_p": 0.07}),
        ({"name": "eta", "epsilon": 0.01}, {"eta_cutoff": 0.01}),
        ({"name": "typical", "mass": 0.6}, {"typical_p": 0.6}),
    ],
    ids=lambda value: value.get("name", ""),
)
def test_generate_samples_from_the_distributions_that_we_sample_from(
    model: TransformersModel, told: dict[str, Any], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    plain: dict[str, Any] = {"top_k": 0, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = _generate(model, PROMPTS[0], do_sample=True, **(plain | options))

    shaping = cast(Shaping, DECODER.validate_python(told))
    for logits, scores in zip(output.logits, output.scores, strict=True):
        torch.testing.assert_close(shaped(logits.float(), shaping), scores.softmax(1), rtol=1e-5, atol=1e-8)


def test_activations_that_a_packing_quantizes_are_quantized(packed: Callable[[str], Path]) -> None:
    """The layer gives what its unpacked weights make of inputs on a grid of 255 steps a token."""
    model = TransformersModel(packed("W8A8"), device="cpu", dtype=torch.float32)
    layer = model.model.model.layers[0].mlp.up_proj
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))

    scale = x.abs().amax(-1, keepdim=True) * 2 / 255
    on_grid = (x / scale).round().clamp(-128, 127) * scale

    assert (layer(x) - on_grid @ layer.weight.T).abs().mean() < 0.2 * (layer(x) - x @ layer.weight.T).abs().mean()
    assert model.open(PROMPTS).step.logits_RV.isfinite().all()


def test_weights_that_are_packed_are_unpacked(packed: Callable[[str], Path], tiny: Tiny) -> None:
    """Four bits in groups of 64: no weight moves by more than half a step, 2·max|w| / 15 at most."""
    plain, model = TransformersModel(tiny("llama"), device="cpu"), TransformersModel(packed("W4A16"), device="cpu")

    for layer, unpacked in zip(plain.model.model.layers, model.model.model.layers, strict=True):
        moved = (unpacked.mlp.up_proj.weight - layer.mlp.up_proj.weight).abs().max()
        assert 0 < moved <= 1.1 * layer.mlp.up_proj.weight.abs().max() / 15
    assert model.open(PROMPTS).step.logits_RV.isfinite().all()


@pytest.mark.parametrize(
    ("section", "asks"),
    [(SECTION, {"kv_cache": [{"k_bits": 4, "layers": [0]}]}), (blocks.SECTION, {"sha256": "0" * 64})],
)
def test_a_checkpoint_that_asks_for_an_engine_of_ours_is_refused(
    tiny: Tiny, tmp_path: Path, section: str, asks: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(tiny("llama"), tmp_path / "asking"))
    edit_json(folder / "config.json", **{section: asks})

    with refused(ErrorCode.RECIPE_NOT_APPLICABLE):
        TransformersModel(folder, device="cpu")


@pytest.mark.parametrize("prompt", [[], [320], [-1]])
def test_a_prompt_that_the_model_cannot_read_is_refused(tiny: Tiny, prompt: list[int]) -> None:
    model = TransformersModel(tiny("llama"), device="cpu")

    with refused(ErrorCode.VOCABULARY_MISMATCH):
        model.open([[1, 2], prompt])


def test_a_caller_may_stop_before_any_forward_pass(tiny: Tiny) -> None:
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 20:
            raise InterruptedError

    model = TransformersModel(tiny("llama"), device="cpu")
    model.check_cancelled = stop

    with pytest.raises(InterruptedError):
        decode(model, PROMPTS, Greedy(), max_tokens=100)
    assert len(asked) == 20


@pytest.mark.parametrize("decoder", [Greedy(), Beam(name="beam")], ids=lambda decoder: decoder.name)
def test_logits_that_are_not_finite_are_refused(tiny: Tiny, decoder: Decoder) -> None:
    model = TransformersModel(tiny("llama"), device="cpu")
    with torch.no_grad():
        model.model.model.norm.weight[:] = torch.nan

    with refused(ErrorCode.NONFINITE_LOGITS):
        decode(model, PROMPTS, decoder, max_tokens=3)
