import shutil
from contextlib import contextmanager
from itertools import combinations, combinations_with_replacement, pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.models.checkpoint import inspect
from app.models.layer_names import in_layer
from tests.support.pruning import operate
from tests.support.step_run import step_run
from workers.surgery.alignment import align, layer_origins, monotone, nearest
from workers.surgery.channels import Channels
from workers.surgery.reading import open_tensors


@pytest.mark.parametrize("strict", [True, False])
def test_the_path_is_the_best_of_all(strict):
    choices = combinations if strict else combinations_with_replacement
    for seed in range(20):
        distance = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        path = monotone(distance, strict=strict)

        def cost(columns, of=distance):
            return sum(float(of[row, column]) for row, column in enumerate(columns))

        assert cost(tuple(path)) == pytest.approx(min(map(cost, choices(range(6), 4))))
        assert all(b > a or (b == a and not strict) for a, b in pairwise(path))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"type": "prune.layers", "layers": [1, 3]}], [0, 2, 4]),
        (
            [{"type": "prune.layers", "layers": [0]}, {"type": "quantize.rtn", "bits": 3, "group_size": 32}],
            [1, 2, 3, 4],
        ),
        ([{"type": "extend.duplicate", "layers": [2]}], [0, 1, 2, 2, 3, 4]),
        ([{"type": "prune.magnitude", "sparsity": 0.5}], [0, 1, 2, 3, 4]),
    ],
)
def test_layers_are_found_again_by_their_tensors(tiny, store, steps, expected):
    reference = inspect(tiny("llama", num_hidden_layers=5))
    with operate(reference.path, store, *steps) as modified:
        wounded = inspect(modified.path)
        with open_tensors(wounded, "cpu") as ours, open_tensors(reference, "cpu") as theirs:
            assert nearest(wounded, ours.read, reference, theirs.read) == expected


@contextmanager
def next_step(base, reference, modified, scratch):
    """What a step after those that made `modified` is given, and a reader of the reference."""
    given = {"reference": inspect(reference), "origins": modified.manifest.origins}
    with (
        open_tensors(inspect(reference), "cpu") as theirs,
        step_run(modified.path, scratch, {"type": "norm.tweak"}, base=base, **given) as context,
    ):
        yield context, theirs


@pytest.mark.parametrize(
    ("steps", "origins", "partners"),
    [
        ([{"type": "prune.magnitude", "sparsity": 0.5}], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        # as deep as the reference, and yet another layer under the same number
        (
            [{"type": "prune.layers", "layers": [1]}, {"type": "extend.duplicate", "layers": [2]}],
            [0, 2, 3, 3, 4],
            [0, 2, 3, 3, 4],
        ),
        (
            [{"type": "extend.interpolate", "layers": [1]}, {"type": "prune.layers", "layers": [4]}],
            [0, 1, 1, 2, 4],
            [0, 1, 1, 2, 4],
        ),
        ([{"type": "extend.identity", "layers": [3]}], [0, 1, 2, 3, 3, 4], [0, 1, 2, 3, 3, 4]),
        # a run that stands twice falls back: 3 rows keep their layer, and either copy of the fourth must give way
        (
            [{"type": "extend.duplicate", "layers": [1, 2]}, {"type": "prune.layers", "layers": [5, 6]}],
            [0, 1, 2, 1, 2],
            None,
        ),
    ],
)
def test_the_recipe_tells_which_layer_is_which(tiny, tmp_path, store, steps, origins, partners):
    folder = tiny("llama", num_hidden_layers=5)
    with (
        operate(folder, store, *steps) as modified,
        next_step(folder, folder, modified, tmp_path / "scratch") as (context, theirs),
    ):
        assert layer_origins(context) == origins
        found = align(context, theirs.read)
        if partners is not None:
            assert found == partners
        else:
            assert all(first <= second for first, second in pairwise(found))
            assert sum(one == other for one, other in zip(found, origins, strict=True)) == 4


def test_layers_are_compared_by_what_their_weights_stand_for(tiny, tmp_path, store):
    """Deeper layers are larger here, so that a layer whose channels were scaled looks like a deeper one."""
    reference, candidate = (shutil.copytree(tiny("llama", num_hidden_layers=5), tmp_path / name) for name in "ab")
    channels = Channels()
    for folder, factor in ((reference, 1.0), (candidate, 8.0)):
        tensors = load_file(folder / "model.safetensors")
        for name, tensor in tensors.items():
            place = in_layer(name)
            if place is not None and tensor.ndim == 2:
                tensor.mul_(factor * 1.5**place.layer)
                if factor != 1:
                    channels.scale(name, inputs=torch.full(tensor.shape[1:], factor))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    channels.save(candidate)
    with operate(candidate, store, {"type": "prune.layers", "layers": [1]}) as modified:
        wounded = inspect(modified.path)
        with open_tensors(wounded, "cpu") as ours, open_tensors(inspect(reference), "cpu") as theirs:
            assert nearest(wounded, ours.read, inspect(reference), theirs.read) != [0, 2, 3, 4]
        with next_step(modified.path, reference, modified, tmp_path / "scratch") as (context, theirs):
            assert layer_origins(context) is None
            assert align(context, theirs.read) == [0, 2, 3, 4]


def test_a_model_that_began_at_another_depth_is_told_by_its_tensors(tiny, tmp_path, store):
    """The candidate is a model of its own that had lost a layer before; a layer of it is repeated, so that there are
    as many as the reference has."""
    reference = tiny("llama", num_hidden_layers=5)
    with (
        operate(reference, store, {"type": "prune.layers", "layers": [0]}) as shallow,
        operate(shallow.path, store, {"type": "extend.duplicate", "layers": [3]}) as modified,
        next_step(shallow.path, reference, modified, tmp_path / "scratch") as (context, theirs),
    ):
        assert layer_origins(context) is None
        assert align(context, theirs.read) == [1, 2, 3, 4, 4]
