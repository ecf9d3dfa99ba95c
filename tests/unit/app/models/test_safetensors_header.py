import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.safetensors_header import TensorInfo, read_header

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
}


def corrupt(path):
    with pytest.raises(HemostatError) as caught:
        read_header(path)
    assert caught.value.code is ErrorCode.CHECKPOINT_CORRUPT
    assert path.name in caught.value.detail
    return caught.value.detail


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"b": torch.ones(3, 4), "a": torch.zeros(5, dtype=torch.bfloat16)}, path, metadata={"format": "pt"})
    return path


def write(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=30
)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_it_reads_what_the_library_writes(tmp_path, tensors):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in tensors.items()}, path)
    assert read_header(path) == {
        name: TensorInfo(dtype, tuple(shape), "x.safetensors") for name, (dtype, shape) in tensors.items()
    }


def test_every_truncation_is_found(file, tmp_path):
    whole = file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        corrupt(cut)


def test_bytes_after_the_end_and_before_it_are_counted(file):
    whole = file.read_bytes()
    file.write_bytes(whole + b"x")
    assert "1 bytes after" in corrupt(file)
    file.write_bytes(whole[:-4])
    assert "58 bytes, 54 are there" in corrupt(file)


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


INVALID = [
    b"not json",
    b"[]",
    b'"text"',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": 1}',
    b"\xff\xfe",
    b"[" * 100_000,
    {"a": 3},
    {"a": {}},
    {"a": F32 | {"dtype": "F31"}},
    {"a": F32 | {"shape": [2]}},
    {"a": F32 | {"shape": [-1]}},
    {"a": F32 | {"shape": [1.0]}},
    {"a": F32 | {"shape": [True]}},
    {"a": F32 | {"shape": "1"}},
    {"a": F32 | {"data_offsets": [0]}},
    {"a": F32 | {"data_offsets": [4, 0]}},
    {"a": F32, "b": F32},
    {"a": F32 | {"data_offsets": [4, 8]}},
]


def test_an_invalid_header_is_found(tmp_path):
    for number, header in enumerate(INVALID):
        corrupt(write(tmp_path / f"{number}.safetensors", header, bytes(4)))


def test_a_header_longer_than_any_and_no_file_are_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    corrupt(path)
    path.unlink()
    path.mkdir()
    corrupt(path)
