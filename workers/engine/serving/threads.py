"""Few rows are corrected on the thread that has them: waking another takes longer than they do.

A row of logits is long enough for torch to share each operation among OpenMP's threads, which sleep between two of them
where a replica has them wait for little (`GOMP_SPINCOUNT`). On two cores that something else wants too, an addition of
49,152 numbers takes 0.05 ms alone, and milliseconds where it waits for the other thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

# Up to so many rows one thread is used: an operation on their logits takes it a tenth of a millisecond or two.
FEW_ROWS: Final = 8


@contextmanager
def on_one_thread(device: torch.device, rows: int) -> Iterator[None]:
    """Operations of torch in this block, and of this thread, are not shared among others: on a CPU, for few rows.
    Setting it costs less than a microsecond."""
    before = torch.get_num_threads()
    if device.type != "cpu" or rows > FEW_ROWS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
