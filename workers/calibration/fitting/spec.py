"""What is to be fitted, and with what settings: small, plain data, so that a fit can be shown and repeated."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from app.kinds.calibrate.calibrators import FITTED

Setting = float | int | str | bool


@dataclass(frozen=True)
class Settings:
    """Numbers of every fit; each kind uses its own.

    lowrank: `rank`, `epochs` full-gradient steps at most, `rate` of the first, `momentum`. `ridge` is the share of the
    mean variance of the hidden state that damps rare directions, `damping` the same of the head's metric. confidence:
    `knots`. token_bias: `evidence`, standard errors that a token's mean gradient must exceed. temperature, confidence,
    token_bias: `rows` at most are looked at, `steps` at most are taken.
    """

    rank: int = 128
    epochs: int = 4
    rate: float = 0.02
    momentum: float = 0.7
    ridge: float = 0.03
    damping: float = 0.03
    knots: int = 6
    evidence: float = 3.0
    rows: int = 8192
    steps: int = 6

    def by_name(self) -> dict[str, Setting]:
        """By name."""
        return asdict(self)


@dataclass(frozen=True)
class Spec:
    """Kinds in the order in which they act and are fitted, each on what the ones before it left; and the settings."""

    kinds: tuple[str, ...]
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in FITTED:
                raise ValueError(f"{kind!r} cannot be fitted")

    @property
    def name(self) -> str:
        """As in `lowrank+confidence`."""
        return "+".join(self.kinds)

    @classmethod
    def parse(cls, name: str, **settings: Setting) -> Spec:
        """From `lowrank+confidence`. What acts earlier in the model is put first, else the order is kept. Raises
        ValueError for a kind that is not known."""
        kinds = sorted(name.split("+"), key=lambda kind: FITTED[kind].place if kind in FITTED else 0)
        return cls(tuple(kinds), Settings(**settings))  # type: ignore[arg-type]
