from pathlib import Path

import pytest
import torch

from workers.calibration.online.engine_term import discard, take, there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hidden").mkdir()
    return tmp_path


def leave(folder: Path, name: str, states_TD: torch.Tensor) -> Path:
    file = folder / "hidden" / name
    file.write_bytes(states_TD.bfloat16().contiguous().view(torch.uint8).numpy().tobytes())
    return file


@pytest.mark.parametrize("named", ["hidden/req-1.bin", "req-1.bin"])
def test_what_was_written_is_read_once(folder: Path, named: str) -> None:
    states_TD = torch.randn(5, 8).bfloat16()
    file = leave(folder, "req-1.bin", states_TD)
    found = take(folder, named, rows=5, hidden_size=8)
    assert found is not None
    assert torch.equal(found, states_TD)
    assert not file.exists()
    assert take(folder, named, rows=5, hidden_size=8) is None


def test_rows_after_the_answers_last_token_are_left_out(folder: Path) -> None:
    states_TD = torch.randn(7, 8).bfloat16()
    leave(folder, "req-1.bin", states_TD)
    assert there(folder, "hidden/req-1.bin")
    found = take(folder, "hidden/req-1.bin", rows=5, hidden_size=8)
    assert found is not None
    assert torch.equal(found, states_TD[:5])
    assert not there(folder, "hidden/req-1.bin")


@pytest.mark.parametrize(("rows", "width"), [(4, 8), (5, 7)])
def test_a_file_of_another_size_is_no_use_and_is_removed(folder: Path, rows: int, width: int) -> None:
    file = leave(folder, "req-1.bin", torch.randn(rows, width))
    assert take(folder, "hidden/req-1.bin", rows=5, hidden_size=8) is None
    assert not file.exists()


@pytest.mark.parametrize("name", [None, "", "../secret.bin", "hidden/../../secret.bin", "/etc/passwd", "hidden/a/b"])
def test_a_name_that_points_elsewhere_is_never_opened_or_removed(folder: Path, name: str | None) -> None:
    outside = folder / "secret.bin"
    outside.write_bytes(b"\0" * 80)
    assert take(folder, name, rows=5, hidden_size=8) is None
    discard(folder, name)
    assert outside.exists()


def test_a_sample_that_is_not_scored_leaves_no_file(folder: Path) -> None:
    file = leave(folder, "req-1.bin", torch.randn(4, 8))
    discard(folder, "hidden/req-1.bin")
    assert not file.exists()
    discard(folder, "hidden/req-1.bin")
