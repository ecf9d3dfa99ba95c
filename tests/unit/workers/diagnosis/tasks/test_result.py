"""What is said of one task, in words."""

from app.contracts.tasks_report import Chance, Equivalence, Share
from workers.diagnosis.tasks.result import sentence
from workers.diagnosis.tasks.statistics.pairs import Pairs

PAIRS = Pairs(both_right=50, both_wrong=34, harmful=12, helpful=4)
WIDE = Equivalence(margin=0.02, p=0.9, p_holm=0.9, ci90=(-0.14, -0.02), equivalent=False)
GUESSED = Chance(accuracy=0.25, p_reference=0.0, p_candidate=0.0, reference_at_chance=False, candidate_at_chance=False)


def test_a_loss_is_told_with_the_minus_of_the_tables() -> None:
    lost = Share(mean=-0.08, ci=(-0.152, 0.004))
    assert sentence("Arithmetic", PAIRS, lost, "worse", WIDE, GUESSED) == (
        "Arithmetic: the candidate is worse: −8.0 points (95 % interval −15.2 to +0.4) in accuracy; "
        "16 of 100 items flip, 12 to wrong and 4 to right."
    )
