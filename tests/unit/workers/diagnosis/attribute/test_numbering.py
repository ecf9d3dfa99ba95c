"""Whether layers of one number are taken for counterparts, of recipes whose numbering is known."""

import pytest

from app.models.checkpoint import inspect
from tests.support.pruning import RECIPE, operate
from workers.diagnosis.attribute.numbering import moved, renumbered_by
from workers.surgery.reading import open_tensors
from workers.surgery.store import CheckpointStore

DROP, COPY = {"type": "prune.layers", "layers": [1]}, {"type": "extend.duplicate", "layers": [3]}


def told(reference, candidate):
    infos = inspect(reference), inspect(candidate)
    with open_tensors(infos[0], "cpu") as ours, open_tensors(infos[1], "cpu") as theirs:
        return moved(*infos, (ours.read, theirs.read))


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_copies_of_other_layers_are_told_by_the_weights(tiny, tmp_path, kind):
    folder = tiny(kind, num_hidden_layers=6)
    rounded = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    # 0 2 3 4 4 5: as many layers as before, the second of them the third one
    with operate(folder, CheckpointStore(tmp_path, 10**9), DROP, COPY, rounded) as modified:
        assert inspect(modified.path).layers == 6
        assert told(folder, modified.path).startswith("layer 1 of the candidate is a copy of the reference's layer 2,")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.rtn", "bits": 2, "group_size": 32},
        {"type": "prune.magnitude", "sparsity": 0.9},
        {"type": "prune.heads", "count": 2},
    ],
    ids=lambda step: step["type"],
)
def test_damage_alone_makes_no_layer_another_one(tiny, tmp_path, step):
    folder = tiny("llama", num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2)
    with operate(folder, CheckpointStore(tmp_path, 10**9), step) as modified:
        assert told(folder, modified.path) == ""


def test_steps_that_number_the_layers_anew_are_named(tiny):
    info = inspect(tiny("llama", num_hidden_layers=6))
    rounded = {"type": "quantize.rtn", "bits": 4}
    assert renumbered_by(info, RECIPE.validate_python([rounded])) == ""
    assert renumbered_by(info, RECIPE.validate_python([rounded, DROP])).startswith("prune.layers numbers the layers")
    both = renumbered_by(info, RECIPE.validate_python([DROP, COPY, COPY]))
    assert both.startswith("prune.layers and extend.duplicate number the layers again")
