import pytest

from app.models.layer_names import InLayer, in_layer


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.layers.12.mlp.up_proj.weight", InLayer("model.layers.", 12, "mlp.up_proj.weight")),
        ("transformer.h.3.attn.c_attn.bias", InLayer("transformer.h.", 3, "attn.c_attn.bias")),
        ("blocks.7.mlp.experts.2.w1", InLayer("blocks.", 7, "mlp.experts.2.w1")),
        ("model.layers.norm.weight", None),
        ("model.sublayers.3.weight", None),
    ],
)
def test_names_are_taken_apart(name, parts):
    assert in_layer(name) == parts
    if parts is not None:
        assert parts.numbered(parts.layer) == name
        assert in_layer(parts.numbered(40)) == InLayer(parts.before, 40, parts.path)
