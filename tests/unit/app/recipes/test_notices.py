"""Warnings of steps as a report has them."""

from app.recipes.notices import StepNotice, made


def test_a_warning_keeps_its_own_facts_beside_what_was_made_by_which_steps() -> None:
    own = {"before": 0.2, "after": 0.3, "steps": 40}
    found = made("the candidate", StepNotice.NO_HELP_OF_RECOVERY(**own), ("prune.gradient",))
    assert found.facts == own | {"made": "the candidate", "made_by": ("prune.gradient",)}
