"""A deployment's events in words, for the terminal."""

from collections.abc import Mapping
from typing import Any, Final

_SENTENCES: Final[Mapping[str, str]] = {
    "created": "created; it serves {version} from the start",
    "changed": "changed: {evidence}",
    "state": "{state}",
    "replica": "{replica} is {state}",
    "fit_started": "its calibration is being fitted (job {job})",
    "refit": "its calibration is fitted again to recent traffic",
    "fitted": "{version} is fitted",
    "refused": "no correction is served",
    "trial": "{version} is on trial in shadow",
    "promoted": "{version} is promoted; before: {previous}",
    "rolled_back": "rolled back from {previous} to {version}",
    "frozen": "frozen: {version} stays",
    "alarm": "drift alarm",
    "cleared": "the drift alarm is cleared",
    "stale": "no request was scored recently",
    "deleted": "deleted",
}
NO_AGENT: Final = "no agent runs it yet"  # of a state's reason, as the store's script says it
GOOD: Final = frozenset({"promoted", "cleared"})
BAD: Final = frozenset({"alarm", "rolled_back", "refused"})
_STYLES: Final[Mapping[str, str]] = {
    "ready": "green",
    "degraded": "yellow",
    "failed": "red",
    "draining": "dim",
    "starting": "cyan",
}


def event_line(event: Mapping[str, Any]) -> str:
    """What happened and why, in one line. `event` is a `DeploymentEvent` as JSON."""
    evidence = dict(event.get("evidence") or {})
    told = {"version": event.get("version") or "identity", "previous": event.get("previous") or "identity"}
    pairs = ", ".join(f"{name} {value}" for name, value in evidence.items())
    kind = str(event["type"])
    if kind == "fit_started" and "job" not in evidence:
        kind = "refit"  # the on-line loop's, which is no job
    words = _SENTENCES.get(kind, kind)
    line = words.format_map(_Blank({**evidence, **told, "evidence": pairs})).rstrip(": ")  # where it has no evidence
    reason = " ".join(str(event.get("reason") or "").split())
    return f"{line}: {reason}" if reason else line


def event_style(event: Mapping[str, Any]) -> str:
    """A colour for it."""
    kind = str(event["type"])
    if kind in GOOD:
        return "green"
    if kind in BAD:
        return "red"
    return state_style(str((event.get("evidence") or {}).get("state", ""))) if kind == "state" else ""


def state_style(state: str) -> str:
    """A colour for a state."""
    return _STYLES.get(state, "")


class _Blank(dict[str, Any]):
    """What an event of another version leaves out is reported as a dash."""

    def __missing__(self, key: str) -> str:
        return "–"
