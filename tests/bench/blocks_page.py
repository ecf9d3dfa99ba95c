"""The tables of docs/results/calibrators.md, from calibrators.csv and blocks.csv."""

from collections.abc import Iterable
from pathlib import Path

from tests.bench.rows import Row, by_case, table

RESULTS = Path(__file__).with_name("blocks.csv")
JOBS = Path(__file__).with_name("calibrators.csv")
SIDES = ("own", "other", "wikitext")


def jobs(rows: Iterable[Row]) -> str:
    """The table of modifications and calibrators: a line per pair, in the order of the file."""
    head = ["modification", "calibrator", "raw KL", "fitted domains, %", "other text, %", "worst domain, %", "job"]
    found = by_case(rows)
    passed = {name.removesuffix("/job"): of["passed"] for name, of in found.items() if name.endswith("/job")}
    pairs = ((*name.split("/"), of) for name, of in found.items() if not name.endswith("/job"))
    return table(head, (_job(modification, one, of, passed[modification]) for modification, one, of in pairs))


def _job(modification: str, calibrator: str, of: dict[str, float], passed: float) -> list[str]:
    worst = min(of["own_removed_least"], of["other_removed_least"])
    raw = f"{of['own_kl_raw']:.3g} / {of['other_kl_raw']:.3g}"
    shares = (_share(of, f"{side}_removed") for side in ("own", "other"))
    outcome = ("passes" if passed else "**refused**") if of["chosen"] else ""
    return [f"`{modification}`", f"`{calibrator}`", raw, *shares, f"{100 * worst:.1f}", outcome]


def page(rows: Iterable[Row]) -> str:
    """The table: a line per case, in the order of the file."""
    head = ["case", "positions", "fitted domains, %", "other domains, %", "WikiText-2, %", "worst domain, %"]
    return table(head, (_line(case, of) for case, of in by_case(rows).items()))


def _line(case: str, of: dict[str, float]) -> list[str]:
    worst = min(of[f"{side}_removed_least"] for side in SIDES)
    shares = (_share(of, f"{side}_removed") for side in SIDES)
    return [f"`{case}`", f"{of['fitted']:.0f}", *shares, f"{100 * worst:.1f}"]


def _share(of: dict[str, float], name: str) -> str:
    mean, low, high = (100 * of[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
