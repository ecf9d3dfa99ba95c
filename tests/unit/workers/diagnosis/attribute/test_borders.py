"""States at the borders are transformers' own; a chain from one of them is the model; a lost attempt goes on."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.copies import copier
from tests.support.internals import TOKENS_NL, at_borders, run, whole
from workers.diagnosis.attribute.borders import Borders, run_chain
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors


class LostError(Exception):
    """The attempt is lost."""


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen2", "granite"])
def test_they_are_what_the_whole_model_has(tiny, tmp_path, kind):
    kept = []
    model = whole(tiny(kind))
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    run(model)
    with at_borders(tiny(kind), scratch=tmp_path) as (borders,):
        assert len(borders) == 4
        for border, expected in enumerate(kept):
            torch.testing.assert_close(borders.read(border, 0, 8), expected, rtol=1e-5, atol=1e-5)


def test_a_models_own_chain_from_its_own_border_is_itself_bit_for_bit(tiny, tmp_path):
    tokens_NL = torch.randint(2, 300, (5, 1000), generator=torch.Generator().manual_seed(0))  # batches of 2, 2, 1
    folder = tiny("llama", max_position_embeddings=1024)
    with at_borders(folder, scratch=tmp_path, tokens_NL=tokens_NL) as (borders,):
        chain = [(borders.runner, layer) for layer in (1, 2)]
        assert torch.equal(run_chain(chain, borders, 1), borders.read(3, 0, 5))


def test_a_lost_attempt_goes_on_behind_the_last_border_that_was_complete(tiny, tmp_path):
    info = inspect(tiny("llama"))
    with open_tensors(info, "cpu") as reader:
        read_layers = []

        def read(name):
            if "q_proj.weight" in name:
                read_layers.append(name.split(".")[2])
                if len(read_layers) == 3:
                    raise LostError
            return reader.read(name)

        with pytest.raises(LostError):
            Borders(Skeleton(info, read, device="cpu", dtype=torch.float32), TOKENS_NL, tmp_path, name="one")
        again = Borders(Skeleton(info, read, device="cpu", dtype=torch.float32), TOKENS_NL, tmp_path, name="one")
        assert read_layers == ["0", "1", "2", "2"]
        fresh = Borders(Skeleton(info, read, device="cpu", dtype=torch.float32), TOKENS_NL, tmp_path, name="other")
        for border in range(4):
            assert torch.equal(again.read(border, 0, 8), fresh.read(border, 0, 8))


def test_states_of_other_tokens_are_not_taken_for_these(tiny, tmp_path):
    with at_borders(tiny("llama"), scratch=tmp_path, tokens_NL=TOKENS_NL.flip(0)) as (other,):
        first = other.read(0, 0, 8)
        with at_borders(tiny("llama"), scratch=tmp_path) as (borders,):
            assert torch.equal(borders.read(0, 0, 8), first.flip(0))


def test_an_output_that_is_not_finite_is_refused_with_its_layer(tiny, tmp_path):
    folder = copier(tiny, tmp_path)("llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"].fill_(3e38)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(HemostatError, match="layer 1") as caught, at_borders(folder, scratch=tmp_path):
        pass
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
