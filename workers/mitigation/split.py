"""Windows that are trained on, and windows that decide whether the training is kept."""

from dataclasses import dataclass

# Share of the windows that decides what is kept.
HELD_OUT = 1 / 8


@dataclass(frozen=True)
class Split:
    """Numbers of windows that are trained on, and of those that decide; the same ones where there is only one."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def of(cls, windows: int) -> "Split":
        """The last eighth decides."""
        held = max(1, round(windows * HELD_OUT))
        if windows == 1:
            return cls((0,), (0,))
        return cls(tuple(range(windows - held)), tuple(range(windows - held, windows)))
