"""Corrected logits of a batch whose rows have different calibrators, or none.

One product with the head for all rows. Rows without a calibrator take part in nothing else, so they are bit for bit
what the model alone computes. Where the whole batch has one calibrator nothing is gathered or scattered.

Names: T rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch

from workers.calibrators.protocol import Calibrator, RowContext

Head = Callable[[torch.Tensor], torch.Tensor]


# Few rows are corrected on the thread that has them: waking another takes longer than they do. A row of logits is
# long enough for torch to share each operation among OpenMP's threads, which sleep between two of them where a
# replica has them wait for little (`GOMP_SPINCOUNT`). On two cores that something else wants too, an addition of
# 49,152 numbers takes 0.05 ms alone, and milliseconds where it waits for the other thread.
# Up to so many rows one thread is used: an operation on their logits takes it a tenth of a millisecond or two.
FEW_ROWS: Final = 8


@contextmanager
def on_one_thread(device: torch.device, rows: int, few: int = FEW_ROWS) -> Iterator[None]:
    """Operations of torch in this block, and of this thread, are not shared among others: on a CPU, for few rows.
    Setting it costs less than a microsecond."""
    before = torch.get_num_threads()
    if device.type != "cpu" or rows > few or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Group:
    """Rows with one calibrator; `rows_G` None: the whole batch."""

    calibrator: Calibrator
    indices: tuple[int, ...]
    rows_G: torch.Tensor | None


def group(calibrators: Sequence[Calibrator | None], device: torch.device) -> list[Group]:
    """The rows of each calibrator, in order of its first row."""
    found: dict[int, tuple[Calibrator, list[int]]] = {}
    for index, calibrator in enumerate(calibrators):
        if calibrator is not None:
            found.setdefault(id(calibrator), (calibrator, []))[1].append(index)
    groups = []
    for calibrator, indices in found.values():
        whole = len(indices) == len(calibrators)
        rows_G = None if whole else torch.tensor(indices, dtype=torch.int64, device=device)
        groups.append(Group(calibrator, tuple(indices), rows_G))
    return groups


def correct(
    hidden_TD: torch.Tensor, groups: Sequence[Group], contexts: Iterable[RowContext], head: Head
) -> torch.Tensor:
    """Logits of every row. Without groups, exactly `head(hidden_TD)`; with any, in float32.

    The sampler takes float32 whatever it gets, and corrections lose nothing to rounding there. `contexts` has one for
    each group, of its rows. `hidden_TD` is not written to.
    """
    if not groups:
        return head(hidden_TD)
    known = list(contexts)
    with on_one_thread(hidden_TD.device, len(hidden_TD)):
        corrected_TD = _hidden(hidden_TD, groups, known)
    logits_TV = head(corrected_TD)
    with on_one_thread(logits_TV.device, len(logits_TV)):
        return _logits_(logits_TV.float(), groups, known)


def _hidden(hidden_TD: torch.Tensor, groups: Sequence[Group], contexts: Sequence[RowContext]) -> torch.Tensor:
    corrected_TD = hidden_TD
    for one, context in zip(groups, contexts, strict=True):
        if one.rows_G is None:
            corrected_TD = one.calibrator.apply_hidden(hidden_TD, context)
            continue
        part_GD = hidden_TD.index_select(0, one.rows_G)
        changed_GD = one.calibrator.apply_hidden(part_GD, context)
        if changed_GD is not part_GD:
            if corrected_TD is hidden_TD:
                corrected_TD = hidden_TD.clone()
            corrected_TD.index_copy_(0, one.rows_G, changed_GD)
    return corrected_TD


def _logits_(logits_TV: torch.Tensor, groups: Sequence[Group], contexts: Sequence[RowContext]) -> torch.Tensor:
    for one, context in zip(groups, contexts, strict=True):
        if one.rows_G is None:  # they are no one else's
            logits_TV = one.calibrator.apply_logits_(logits_TV, context)
            continue
        part_GV = logits_TV.index_select(0, one.rows_G)
        changed_GV = one.calibrator.apply_logits(part_GV, context)
        if changed_GV is not part_GV:
            logits_TV.index_copy_(0, one.rows_G, changed_GV)
    return logits_TV


def broken_rows(logits_TV: torch.Tensor) -> list[int]:
    """Rows that hold NaN or +inf, or nothing finite: no distribution. Single −inf are tokens that cannot come.

    A sum shows whether a row may be one, and reads memory once; only such rows are looked at twice.
    """
    with on_one_thread(logits_TV.device, len(logits_TV)):
        sums = logits_TV.sum(dim=-1).isfinite()
        if bool(sums.all()):
            return []
    suspects = (~sums).nonzero().flatten().tolist()
    return [row for row in suspects if _broken(logits_TV[row])]


def _broken(logits_V: torch.Tensor) -> bool:
    largest = logits_V.amax()  # NaN where there is one
    return not bool(largest.isfinite())
