"""A claim and what was measured become a finding; one that cannot be decided is told, and loses no other."""

from __future__ import annotations

from collections.abc import Mapping

from app.contracts.errors import HemostatError
from examples.paper.claim import Claim
from examples.paper.finding import Finding, NoNumberError
from examples.paper.measure import Measured
from examples.paper.pairs import differ_of
from examples.paper.rulings import RULINGS
from examples.paper.rulings.reports import Reports


def judge(claim: Claim, measured: Mapping[str, Measured]) -> Finding:
    """Applies the claim's rule. Raises KeyError where no rule has its name."""
    rule = RULINGS[claim.ruling]
    missing = [f"{name}: {measured[name].why}" for name in claim.jobs if measured[name].report is None]
    if missing:
        return Finding("not measured", f"{'; '.join(missing)}.")
    by_job = {name: found.report for name in claim.jobs if (found := measured[name]).report is not None}
    reports = Reports(by_job, differ_of(measured))
    try:
        return rule(reports)
    except NoNumberError as error:
        return Finding("not identifiable", f"{error}.")
    except (ArithmeticError, HemostatError, LookupError, TypeError, ValueError) as error:
        return Finding("not measured", f"the rule cannot read what was measured: {error}.")
