from tests.bench.mitigation import versions_of, with_those_held_against
from tests.bench.mitigation_cases import CASES, Case
from workers.mitigation.repair.step import RepairStep
from workers.surgery.application import SURGERY_VERSION
from workers.surgery.merge import Lora
from workers.surgery.quantize_rtn import RtnPacked


def test_a_case_comes_behind_those_that_it_is_held_against() -> None:
    order = [case.name for case in with_those_held_against([CASES["dynamic_4"], CASES["rtn_4"]])]
    assert order == ["rtn_4", "gptq_4", "awq_4", "dynamic_4_layers", "dynamic_4"]
    everything = [case.name for case in with_those_held_against(CASES.values())]
    assert sorted(everything) == sorted(CASES)
    for case in CASES.values():
        assert all(everything.index(other) < everything.index(case.name) for other in case.against), case.name


def test_versions_are_those_of_the_code_that_makes_the_checkpoint() -> None:
    """Steps that change one weight at a time have the surgery's alone; a recipe beside counts by its name."""
    surgery = {"version_surgery": SURGERY_VERSION}
    assert versions_of(CASES["rtn_4"]) == surgery
    assert versions_of(CASES["rtn_4_packed"]) == surgery | {"version_1": RtnPacked.version}
    assert versions_of(CASES["repair_rtn_4_r16"]) == surgery | {"version_2": RepairStep.version}
    adapter = {"version_2": Lora.version, "version_repair_2": RepairStep.version}
    assert versions_of(CASES["rtn_4_then_adapter"]) == surgery | adapter
    for case in CASES.values():
        assert all(isinstance(version, int) for version in versions_of(case).values())


def test_a_mark_is_of_what_is_measured_and_not_of_how_it_is_written() -> None:
    short = Case("a", ({"type": "quantize.dynamic", "bits": 4},))
    whole = Case("b", ({"bits": 4.0, "block_epochs": 3, "group_size": 64, "type": "quantize.dynamic"},))
    assert short.mark == whole.mark
    others = [
        Case("c", ({"type": "quantize.dynamic", "bits": 4, "block_epochs": 0},)),
        Case("d", ({"type": "merge.linear", "other": "x"},), beside={"x": short.recipe}),
        Case("e", ({"type": "merge.linear", "other": "x"},), beside={"x": ({"type": "quantize.rtn", "bits": 4},)}),
        Case("f", ({"type": "merge.linear", "other": "x"},)),
    ]
    assert len({short.mark, *(one.mark for one in others)}) == 5
