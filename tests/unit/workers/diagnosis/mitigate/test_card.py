"""The model card says of the test what is so."""

import pytest

from app.kinds.mitigate.report import MitigateReport
from tests.support.mitigate_reports import DYNAMIC, REPAIR, RTN, mitigate_report
from workers.diagnosis.mitigate.card import model_card


@pytest.mark.parametrize("allowed", [False, True])
def test_the_test_took_part_in_nothing_unless_an_overlap_was_allowed(*, allowed):
    report = mitigate_report()
    report["request"]["allow_overlap"] = allowed
    card = " ".join(model_card(MitigateReport.model_validate(report), []).split())
    assert ("that took no part in fitting or choosing and were read once" in card) is not allowed
    assert ("treatments may have looked at some of them" in card) is allowed
    assert ("--recipe @recipe.json --allow-overlap" in card) is allowed


@pytest.mark.parametrize(
    ("treated", "anew", "goes_on"),
    [
        ([RTN, REPAIR], False, "for the candidate."),
        ([DYNAMIC, REPAIR], False, "for the checkpoint that the recipe makes without its last step."),
        ([RTN, REPAIR], True, "for the weights in its folder `base`."),
    ],
)
def test_it_tells_what_the_repair_is_loaded_on(treated, anew, goes_on):
    report = mitigate_report()
    report["front"][-1]["recipe"] = report["recommended"] = treated
    parsed = MitigateReport.model_validate(report)
    files = ["adapter_config.json", "adapter_model.safetensors"]
    for names in (["adapter.zip", "model.safetensors"], files):
        card = " ".join(model_card(parsed, names, anew=anew).split())
        assert f"a LoRA that PEFT and vLLM load, {goes_on}" in card
        assert ("merged into the checkpoint" in card) is (names != files)


def test_no_repair_is_promised_beside_a_recipe_whose_rounds_made_weights_of_their_own():
    report = mitigate_report()
    report["front"][-1]["recipe"] = report["recommended"] = [RTN, REPAIR | {"iterations": 3}]
    parsed = MitigateReport.model_validate(report)
    for files, anew in (([], True), ([], False), (["adapter.zip", "model.safetensors"], True)):
        assert ("No LoRA is beside this card" in model_card(parsed, files, anew=anew)) is (anew and not files)
