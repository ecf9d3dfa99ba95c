"""What the tests of the reference store write into it, and what it has to hold then."""

import pytest
import torch

from tests.support.distributions import hidden_states
from workers.distributions.reference_store import ReferenceStore, StoredHidden

LENGTHS = (5, 2, 9, 1, 7)
SIZE = 16
META = {"model": "tiny", "what": "reference"}
HUGE = 10**9


def windows(seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    return [hidden_states(length, SIZE, seed=seed + 10 * i, dtype=dtype) for i, length in enumerate(LENGTHS)]


def fill(store: ReferenceStore, key: str, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> None:
    with store.write(key, LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows(seed, dtype)[writer.windows_done :]:
            writer.append(hidden_TD)


def assert_holds(stored: StoredHidden | None, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> None:
    assert stored is not None
    assert len(stored) == len(LENGTHS)
    assert stored.lengths == LENGTHS
    assert stored.meta == META
    for index, expected in enumerate(windows(seed, dtype)):
        found = stored.window(index)
        assert found.dtype == dtype
        assert torch.equal(found, expected)


def lose(store: ReferenceStore, key: str, after: int, seed: int = 0) -> None:
    """A pass that ends after so many windows."""
    with pytest.raises(KeyboardInterrupt), store.write(key, LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows(seed)[writer.windows_done : after]:
            writer.append(hidden_TD)
        raise KeyboardInterrupt
