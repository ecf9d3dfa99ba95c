"""How many threads of OpenMP an operation on a batch's logits is shared among."""

from collections.abc import Iterator

import pytest
import torch

from workers.engine.serving.corrections import FEW_ROWS, on_one_thread

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "rows", "threads"), [("cpu", FEW_ROWS, 1), ("cpu", FEW_ROWS + 1, 3), ("cuda", 1, 3)]
)
def test_few_rows_on_a_cpu_are_the_business_of_one_thread(device: str, rows: int, threads: int) -> None:
    with on_one_thread(torch.device(device), rows):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_the_number_is_what_it_was_behind_an_error() -> None:
    with pytest.raises(KeyError), on_one_thread(CPU, 1):
        raise KeyError
    assert torch.get_num_threads() == 3


def test_what_was_one_thread_stays_one() -> None:
    torch.set_num_threads(1)
    with on_one_thread(CPU, 1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1
