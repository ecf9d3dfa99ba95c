"""How numbers are written for people.

A mean carries as many digits as its interval supports (two of the half width), and up to two more if it or a bound
would wrongly read as 0. An interval has the digits of its mean, and small numbers are written in powers of ten, so that
1.6e-6 nats never reads as 0.000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

MINUS = "\u2212"
NONE = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALL = 1e-3
_LARGE = 1e9
_MAX_DECIMALS = 12
_NEARLY_ALL = "> 99.99"  # of a share: more decimals tell no one more
_DECIMALS_OF_ALL = 2
_MORE_DECIMALS = 2  # that keep what is not 0 from reading as 0

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean as text, and its interval as text (None if there is none), both in the same unit and digits."""

    value: str
    interval: str | None

    def __str__(self) -> str:
        return self.value if self.interval is None else f"{self.value} {self.interval}"


def estimate(
    mean: float | None, ci: Interval | None, *, percent: bool = False, decimals: int | None = None
) -> Estimate:
    """`0.326` and `[0.311, 0.342]`; with `percent` both times 100, without the sign; small numbers in powers of ten.

    With `decimals` so many, whatever the interval supports, and no power of ten. A share of nearly all has two decimals
    at most, with which it does not read as 100.
    """
    if mean is None:
        return Estimate(NONE, None)
    scale = 100.0 if percent else 1.0
    values = [mean * scale, *(bound * scale for bound in ci or ())]
    largest = max(map(abs, values))
    by_power = decimals is None and (0 < largest < _SMALL or largest >= _LARGE)
    exponent = math.floor(math.log10(largest)) if by_power and math.isfinite(largest) else 0
    values = [value / 10.0**exponent for value in values]
    if decimals is None:
        decimals = _telling(values, _decimals(values[0], (values[2] - values[1]) / 2 if ci else 0.0))
        if percent and abs(values[0] - 100.0) < 5 * 10.0**-_DECIMALS_OF_ALL:
            decimals = min(decimals, _DECIMALS_OF_ALL)
    texts = [_share(value, decimals) if percent else _fixed(value, decimals) for value in values]
    power = f"×10{str(exponent).translate(_SUPERSCRIPTS)}" if exponent else ""
    return Estimate(texts[0] + power, f"[{texts[1]}, {texts[2]}]{power}" if ci else None)


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits: `0.326`, `1,204`, `1.60×10⁻⁶`, `0`; a dash where there is no number."""
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    exponent = math.floor(math.log10(abs(value)))
    if round(abs(value) / 10.0**exponent, digits - 1) >= 10:  # 9.996 at three digits
        exponent += 1
    if abs(value) < _SMALL or abs(value) >= _LARGE:
        mantissa = value / 10.0**exponent
        return f"{_fixed(mantissa, digits - 1)}×10{str(exponent).translate(_SUPERSCRIPTS)}"
    return _fixed(value, max(0, digits - 1 - exponent))


def plain(value: float, digits: int = 3) -> str:
    """At most `digits` significant digits, no zeros at the end: `0.38`, `2`; `1,432` and `6.00×10⁻⁷` as `number`."""
    text = f"{value:.{digits}g}"
    return number(value, digits) if "e" in text else text.replace("-", MINUS)


def short(value: float) -> str:
    """As few characters as tell the value, for axes and thresholds: `0.05`, `1`, `10⁻⁴`, `3×10⁻⁴`."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if 1e-4 * (1 - 1e-9) <= abs(value) < 1e5:
        return f"{value:.6f}".rstrip("0").rstrip(".").replace("-", MINUS)
    mantissa = value / 10.0**exponent
    power = f"10{str(exponent).translate(_SUPERSCRIPTS)}"
    return power if math.isclose(mantissa, 1) else f"{mantissa:.3g}×{power}".replace("-", MINUS)


def percent(share: float, digits: int = 3) -> str:
    """A share in per cent, `digits` significant digits, without the sign. A share of nearly all never reads as 100:
    it has up to two decimals more, and is `> 99.99` beyond these."""
    if 0.9995 <= share < 1:
        decimals = math.ceil(round(-math.log10((1 - share) * 100), 6))
        return _NEARLY_ALL if decimals > _DECIMALS_OF_ALL else f"{share * 100:.{decimals}f}"
    return number(share * 100, digits)


def signed(value: float | None, digits: int = 3) -> str:
    """As `number`, with a plus where it is positive."""
    return f"+{number(value, digits)}" if value is not None and value > 0 else number(value, digits)


def count(value: int) -> str:
    """`12,345`."""
    return f"{value:,}".replace("-", MINUS)


def counted(value: int, noun: str) -> str:
    """`1 document`, `12,345 documents`: of nouns that take an s."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def size(value: int) -> str:
    """Bytes in binary units: `269 MiB`."""
    amount, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{value:,} B" if unit == "B" else f"{number(amount, 3)} {unit}"


def duration(seconds: float) -> str:
    """`0.2 s`, `48.1 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(unix: float) -> str:
    """A time in UTC: `2026-03-01 12:00:05 UTC`."""
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{unix:g} s after 1970"


def _decimals(value: float, half_width: float) -> int:
    if half_width > 0:
        decimals = 1 - math.floor(math.log10(half_width))
    elif value:
        decimals = 2 - math.floor(math.log10(abs(value)))
    else:
        decimals = 0
    return min(_MAX_DECIMALS, max(0, decimals))


def _telling(values: Sequence[float], decimals: int) -> int:
    """As many decimals, or the fewest more with which every value that is not 0 has a digit that is not."""
    more = range(decimals, min(_MAX_DECIMALS, decimals + _MORE_DECIMALS) + 1)
    shown = [sum(bool(round(value, places)) for value in values) for places in more]
    return more[shown.index(max(shown))]


def _share(value: float, decimals: int) -> str:
    """In per cent; what is not all does not read as all for want of decimals."""
    text = _fixed(value, decimals)
    return _NEARLY_ALL if decimals == _DECIMALS_OF_ALL and value < 100 and text == "100.00" else text


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-")  # no negative zero
    return text.replace("-", MINUS)
