import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from app.models.safetensors_header import read_header
from workers.surgery.safetensors_writer import DTYPES, Planned, ShardWriter, plan_shards, write_shards


def make(planned, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(planned.shape, generator=generator) * 3).to(DTYPES[planned.dtype])


def write(folder, planned, shard_bytes):
    shards = plan_shards(planned, shard_bytes=shard_bytes)
    tensors = {tensor.name: make(tensor, index) for index, tensor in enumerate(planned)}

    def stream():
        for shard in shards:
            for tensor in shard:
                yield tensor.name, tensors[tensor.name]

    write_shards(folder, shards, stream())
    return tensors


TENSORS = st.lists(
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=6
)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sizes=TENSORS, shard_bytes=st.integers(1, 200))
def test_the_library_reads_what_is_written(tmp_path_factory, sizes, shard_bytes):
    folder = tmp_path_factory.mktemp("shards")
    planned = [Planned(f"t{i}.ü", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(sizes)]
    tensors = write(folder, planned, shard_bytes)
    found = {}
    for file in folder.glob("*.safetensors"):
        read_header(file)
        found |= load_file(file)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].double(), tensor.double())


def test_several_shards_have_an_index(tmp_path):
    planned = [Planned(f"layer.{i}", "BF16", (8, 8)) for i in range(5)]
    write(tmp_path, planned, 300)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 128
    assert sorted(index["weight_map"]) == [f"layer.{i}" for i in range(5)]
    assert set(index["weight_map"].values()) == {f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)}
    for file in set(index["weight_map"].values()):
        assert (tmp_path / file).stat().st_size < 300 + 500
        with safe_open(tmp_path / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}


def test_wide_dtypes_come_first_so_that_data_are_aligned(tmp_path):
    planned = [
        Planned("a", "I8", (3,)),
        Planned("b", "F32", (1,)),
        Planned("c", "BF16", (1,)),
        Planned("d", "I64", (1,)),
    ]
    write(tmp_path, planned, 1000)
    header = (tmp_path / "model.safetensors").read_bytes()
    assert list(read_header(tmp_path / "model.safetensors")) == ["d", "b", "c", "a"]
    assert int.from_bytes(header[:8], "little") % 8 == 0


def test_another_tensor_than_planned_is_an_error(tmp_path):
    planned = [Planned("a", "F32", (2,))]
    for name, tensor in (("b", torch.zeros(2)), ("a", torch.zeros(3)), ("a", torch.zeros(2, dtype=torch.float16))):
        with pytest.raises(ValueError, match="expected"), ShardWriter(tmp_path / "x.safetensors", planned) as writer:
            writer.write(name, tensor)
    with pytest.raises(ValueError, match="not written"), ShardWriter(tmp_path / "x.safetensors", planned):
        pass


def test_a_full_disk_is_the_system_s_error():
    planned = [Planned("a", "F32", (100_000,))]
    with pytest.raises(OSError, match="No space left"), ShardWriter(Path("/dev/full"), planned) as writer:
        writer.write("a", torch.zeros(100_000))


def test_a_disk_that_is_full_at_the_last_flush_is_noticed():
    planned = [Planned("a", "F32", (1,))]
    with pytest.raises(OSError, match="No space left"), ShardWriter(Path("/dev/full"), planned) as writer:
        writer.write("a", torch.zeros(1))
