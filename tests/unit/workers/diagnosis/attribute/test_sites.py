"""Parts of checkpoints, told by their tensors."""

import pytest

from app.models.checkpoint import inspect
from tests.unit.workers.diagnosis.attribute.planted import parts
from tests.unit.workers.diagnosis.attribute.swapped import HEADS
from workers.diagnosis.attribute.sites import Piece, Site, scope_of, sites_of


def named(folder, layers=None):
    return {site.name: site for site in sites_of(inspect(folder), layers)}


def test_the_layers_hold_every_tensor_and_what_stands_outside_the_rest(tiny):
    info = inspect(tiny("llama-untied"))
    outer = [site for site in sites_of(info) if site.kind in {"layer", "embedding", "head"} or site.name == "norm"]
    held = [tensor for site in outer for tensor in site.tensors]
    assert sorted(held) == sorted(info.tensors)


def test_modules_norms_and_experts_of_a_layer_are_all_of_it(tiny):
    for kind in ("llama", "qwen2", "gemma2", "mixtral"):
        sites = [site for site in sites_of(inspect(tiny(kind))) if site.layer == 1]
        whole = next(site for site in sites if site.whole)
        parts = [tensor for site in sites if site.kind in {"module", "norm", "expert"} for tensor in site.tensors]
        assert sorted(parts) == sorted(whole.tensors), kind


def test_groups_of_heads_cover_queries_keys_values_and_outputs_once(tiny):
    sites = named(tiny("llama", **HEADS))
    groups = [sites[f"layers.1.self_attn.heads.{group}"] for group in range(2)]
    rows = {}
    for site in groups:
        for piece in site.pieces:
            rows.setdefault(piece.tensor.split(".")[-2], []).append((piece.start, piece.stop))
    assert rows == {
        "q_proj": [(0, 64), (64, 128)],
        "k_proj": [(0, 32), (32, 64)],
        "v_proj": [(0, 32), (32, 64)],
        "o_proj": [(0, 64), (64, 128)],
    }
    assert {piece.dim for site in groups for piece in site.pieces if "o_proj" in piece.tensor} == {1}


def test_one_group_of_heads_is_no_part_of_its_own(tiny):
    assert not [site for site in sites_of(inspect(tiny("llama"))) if site.kind == "heads"]


def test_a_tied_matrix_is_two_parts_and_biases_go_with_their_modules(tiny):
    sites = named(tiny("qwen2"))
    assert sites["embed_tokens"].tensors == sites["lm_head"].tensors == ("model.embed_tokens.weight",)
    assert set(sites["layers.0.self_attn.q_proj"].tensors) == {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
    }


def test_layers_that_are_named_leave_everything_else_out(tiny):
    assert {site.layer for site in sites_of(inspect(tiny("llama")), (2,))} == {2}


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (Piece("w", 0, 0, 4), Piece("w", 0, 4, 8), False),
        (Piece("w", 0, 0, 5), Piece("w", 0, 4, 8), True),
        (Piece("w", 0, 0, 4), Piece("w", 1, 0, 4), True),
        (Piece("w"), Piece("w", 1, 0, 4), True),
        (Piece("w"), Piece("v"), False),
    ],
)
def test_parts_that_share_weights_are_told(first, second, shared):
    one, other = Site("a", "module", 0, (first,)), Site("b", "heads", 0, (second,))
    assert one.within(other) is shared
    assert other.within(one) is shared
    assert not one.within(Site("c", "module", 1, (first,)))
    assert one.within(Site("d", "layer", 0, ()))


SITES = parts(4)


def of_layer(layer):
    return [site for site in SITES if site.layer == layer]


def test_parts_of_other_kinds_are_neither_chosen_nor_unchanged():
    scope = scope_of(SITES, [*of_layer(1), *of_layer(2), SITES[-1]], ("module",))
    assert [site.name for site in scope.chosen] == [
        "layers.1.mlp.up_proj",
        "layers.1.mlp.down_proj",
        "layers.2.mlp.up_proj",
        "layers.2.mlp.down_proj",
        "lm_head",
    ]
    # the modules of layers 0 and 3, embedding and final norm
    assert (scope.unchanged, scope.others) == (6, 2)
