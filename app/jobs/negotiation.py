"""Which of the media types that can be produced a client wants (RFC 9110, Accept)."""

from collections.abc import Sequence


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """The offered type with the highest quality, the earlier one of equals; None if none is acceptable.

    The most specific range of the header that fits a type gives its quality. A missing header accepts everything; a
    range that cannot be read is passed over.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [parsed for part in accept.split(",") if (parsed := _parse(part)) is not None]
    best, best_quality = None, 0.0
    for media_type in offered:
        fitting = [(specificity, quality) for name, specificity, quality in ranges if _fits(name, media_type)]
        quality = max(fitting)[1] if fitting else 0.0
        if quality > best_quality:
            best, best_quality = media_type, quality
    return best


def _parse(part: str) -> tuple[str, int, float] | None:
    name, *parameters = (piece.strip().casefold() for piece in part.split(";"))
    if name.count("/") != 1:
        return None
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return None
    specificity = 0 if name == "*/*" else 1 if name.endswith("/*") else 2
    return name, specificity, quality


def _fits(pattern: str, media_type: str) -> bool:
    if pattern in ("*/*", media_type):
        return True
    return pattern.endswith("/*") and media_type.startswith(pattern[:-1])
