"""The record of scaled channels: by numbers made by hand, and as it goes with checkpoints."""

from io import BytesIO

import numpy as np
import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import fingerprint, inspect
from tests.support.quantizing import operate, tensors
from tests.support.refusals import refusal_of
from workers.surgery.channels import Channels, framed

WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
AWQ = {"type": "quantize.awq", "bits": 8, "group_size": 32}
Q, NORM = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.input_layernorm.weight"


def test_a_matrix_is_scaled_by_rows_and_columns_and_back():
    channels = Channels()
    channels.scale("w", inputs=torch.tensor([1.0, 2.0, 10.0]))
    channels.scale("w", outputs=torch.tensor([1.0, 0.5]))
    moved = channels.moved("w", WEIGHT)
    assert moved.tolist() == [[1.0, 4.0, 30.0], [2.0, 5.0, 30.0]]
    torch.testing.assert_close(channels.meaning("w", moved), WEIGHT)
    assert channels.moved("other", WEIGHT) is WEIGHT
    assert channels.meaning("other", WEIGHT) is WEIGHT


def test_factors_on_factors_multiply_and_what_comes_back_to_one_is_none():
    given, channels = torch.tensor([2.0, 4.0, 1.0]), Channels()
    channels.scale("w", inputs=given)
    given.fill_(7)  # what becomes of them later is nothing to the record
    channels.scale("w", inputs=torch.tensor([3.0, 0.25, 1.0]))
    assert channels.moved("w", torch.ones(1, 3)).tolist() == [[6.0, 1.0, 1.0]]
    assert channels
    channels.scale("w", inputs=torch.tensor([1 / 6, 1.0, 1.0]))
    assert not channels


def test_gemmas_norms_are_scaled_with_their_one_and_biases_without():
    channels = Channels(offset=1.0)
    channels.scale("norm.weight", outputs=torch.tensor([0.5, 2.0]))
    channels.scale("v_proj.bias", outputs=torch.tensor([0.5, 2.0]))
    assert channels.moved("norm.weight", torch.tensor([0.0, 1.0])).tolist() == [-0.5, 3.0]
    assert channels.meaning("norm.weight", torch.tensor([-0.5, 3.0])).tolist() == [0.0, 1.0]
    assert channels.moved("v_proj.bias", torch.tensor([4.0, 1.0])).tolist() == [2.0, 2.0]


def test_it_is_kept_beside_the_weights_and_only_where_there_is_one(tmp_path):
    channels = Channels()
    channels.save(tmp_path)
    assert not list(tmp_path.iterdir())
    channels.scale("model.layers.0.w", inputs=torch.tensor([2.0, 1.0, 1.0]), outputs=torch.tensor([0.5, 1.0]))
    channels.save(tmp_path)
    (file,) = tmp_path.iterdir()
    once = file.read_bytes()
    again = Channels.load(tmp_path)
    assert torch.equal(again.moved("model.layers.0.w", WEIGHT), channels.moved("model.layers.0.w", WEIGHT))
    again.save(tmp_path)
    assert file.read_bytes() == once
    again.forget("model.layers.0.w")
    again.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_takes_over_anothers_factors_and_another_shape_loses_the_side_that_changed():
    channels, other = Channels(), Channels()
    channels.scale("a", inputs=torch.tensor([2.0, 1.0, 1.0]), outputs=torch.tensor([0.5, 1.0]))
    other.scale("b", inputs=torch.tensor([9.0, 9.0, 9.0]))
    other.copy("b", channels, "a")
    assert torch.equal(other.moved("b", WEIGHT), channels.moved("a", WEIGHT))
    other.reshaped("b", (5, 3))
    assert other.moved("b", torch.ones(5, 3))[0].tolist() == [2.0, 1.0, 1.0]
    other.copy("b", channels, "nothing")
    assert not other


def test_another_model_is_read_in_this_ones_frame():
    theirs, ours = Channels(), Channels()
    tensors_of = {"w": WEIGHT.to(torch.bfloat16), "norm": torch.tensor([2.0, 3.0]).to(torch.bfloat16)}
    read = framed(tensors_of.__getitem__, theirs, ours)
    assert read("w") is tensors_of["w"]
    theirs.scale("w", inputs=torch.tensor([2.0, 1.0, 1.0]))
    theirs.scale("norm", outputs=torch.tensor([0.5, 1.0]))
    ours.scale("w", outputs=torch.tensor([1.0, 3.0]))
    assert read("w").tolist() == [[0.5, 2.0, 3.0], [6.0, 15.0, 18.0]]
    assert read("norm").tolist() == [4.0, 3.0]
    assert (read("w").dtype, read("norm").dtype) == (torch.float32, torch.bfloat16)
    ours.copy("w", theirs, "w")  # scaled the same in both: the numbers as they are
    assert read("w") is tensors_of["w"]


def test_a_matrix_of_another_shape_is_read_in_the_frame_of_the_sides_that_are_alike():
    theirs, ours = Channels(), Channels()
    ours.scale("w", inputs=torch.tensor([2.0, 1.0, 1.0]), outputs=torch.tensor([3.0]))
    assert framed({"w": WEIGHT}.__getitem__, theirs, ours)("w").tolist() == [[2.0, 2.0, 3.0], [8.0, 5.0, 6.0]]


def archive(**arrays):
    stream = BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def array_alone():
    stream = BytesIO()
    np.save(stream, np.ones(3, np.float32))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"PK no archive", b"\x80\x04pickled", array_alone()),
        *(archive(**{"inputs/w": one}) for one in (np.ones((2, 2), np.float32), np.array([0.0], np.float32))),
        *(archive(**{"inputs/w": one}) for one in (np.ones(3), np.array(["a"]))),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "channels.npz").write_bytes(content)
    assert refusal_of(Channels.load, tmp_path).code is ErrorCode.CHECKPOINT_CORRUPT


def test_a_record_of_another_shape_than_the_tensors_is_refused():
    channels = Channels()
    channels.scale("w", inputs=torch.tensor([2.0, 1.0]))
    assert refusal_of(channels.moved, "w", WEIGHT).code is ErrorCode.CHECKPOINT_CORRUPT


# ---- with checkpoints


def test_the_record_is_part_of_what_a_checkpoint_is(copy):
    folder = copy()
    plain = fingerprint(folder)
    channels = Channels()
    channels.scale(Q, inputs=torch.full((64,), 2.0))
    channels.save(folder)
    first = fingerprint(folder)
    channels.scale(Q, inputs=torch.full((64,), 2.0))
    channels.save(folder)
    assert len({plain, first, fingerprint(folder)}) == 3
    assert inspect(folder).files == ("model.safetensors",)
    channels.forget()
    channels.save(folder)
    assert fingerprint(folder) == plain


def test_layers_that_move_take_their_factors_with_them(outliers, shared):
    with operate(outliers(), shared, AWQ, {"type": "prune.layers", "layers": [0]}) as shorter:
        channels, found = Channels.of(inspect(shorter.path)), tensors(shorter.path)
    original = tensors(outliers())
    for name in (Q, NORM):
        there, gone = name.replace(".1.", ".0."), name.replace(".1.", ".2.")
        torch.testing.assert_close(channels.meaning(there, found[there]), original[name].float(), rtol=0.02, atol=0.02)
        assert channels.moved(gone, original[name]) is original[name]


@pytest.mark.parametrize(
    ("after", "rows", "columns", "times"),
    [
        ({"type": "prune.heads", "count": 2}, "self_attn.v_proj", "self_attn.o_proj", 1),
        ({"type": "prune.channels", "count": 32}, "mlp.up_proj", "mlp.down_proj", 1),
        ({"type": "extend.width", "heads": 2}, "self_attn.v_proj", "self_attn.o_proj", 2),
        ({"type": "extend.width", "channels": 2}, "mlp.up_proj", "mlp.down_proj", 2),
    ],
    ids=["heads", "channels", "wider-heads", "wider-mlp"],
)
def test_parts_that_go_or_stand_twice_take_their_factors_with_them(outliers, shared, after, rows, columns, times):
    """Rows and columns that are the same number for number mean the same, whichever stand beside them."""
    source = outliers(num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    with operate(source, shared, AWQ) as scaled, operate(source, shared, AWQ, after) as made:
        before, now = Channels.of(inspect(scaled.path)), Channels.of(inspect(made.path))
        old, new = tensors(scaled.path), tensors(made.path)
    for part, turned in ((rows, False), (columns, True)):
        name = f"model.layers.1.{part}.weight"
        factors_OI = before.moved(name, torch.ones(old[name].shape))
        stored, kept = (old[name].T, new[name].T * times) if turned else (old[name], new[name])
        meant, meaning = before.meaning(name, old[name].float()), now.meaning(name, new[name].float())
        meant, meaning = (meant.T, meaning.T * times) if turned else (meant, meaning)
        assert len((factors_OI[0] if turned else factors_OI[:, 0]).unique()) > 1, "the step before scaled them"
        came = (kept[:, None].float() == stored[None].float()).all(-1).float().argmax(1)
        assert len(kept) != len(stored)
        assert torch.equal(stored[came].float(), kept.float())
        torch.testing.assert_close(meaning, meant[came])
