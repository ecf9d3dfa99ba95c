"""Which part the answer names, what it is the worst of, and on how much text it was measured."""

from typing import Any

import pytest

from app.kinds.attribute.answer import layers_in_words, sentence
from app.kinds.attribute.report import AttributeReport
from tests.support import internals_blocks
from tests.support.attribute_reports import attribute_report, attribute_variants, first, site

Json = dict[str, Any]
NOTHING = {"considered": 0, "measured": 0, "rungs": []}


def answer(
    *sites: Json, search: Json | None = None, request: Json | None = None, looked: list[str] | None = None, **more: Any
) -> str:
    """The answer of a report on all kinds and layers, if `request` does not ask for less."""
    body = attribute_report(sites=list(sites))
    body["search"] |= search or {}
    body["request"] |= {"levels": ["layer", "module", "norm", "heads", "expert"], "layers": None} | (request or {})
    if looked is not None:
        body["explained"]["sites"] = looked
    return sentence(AttributeReport.model_validate(body | more))


def part(layer: int, nats: float, cause: str = "size", **changes: Any) -> Json:
    return first(f"layers.{layer}.mlp.up_proj", nats, cause, **({"shown": True} | changes))


def test_the_worst_part_has_its_share_and_the_text_it_was_measured_on() -> None:
    told = answer(part(0, 0.18), part(1, 0.05))
    assert told == (
        "The worst part is layers.0.mlp.up_proj, which alone costs 45.0 [40.0, 50.0] % of the 0.400 nats per token "
        "that the whole candidate loses on 3,900 tokens of 30 documents; the first 2 parts together cost "
        "75.0 [71.0, 79.0] % of it."
    )
    assert "too little text for an interval" in answer(part(0, 0.18, share_ci=None))
    assert "too little text" not in told


def test_a_part_that_saw_the_first_tokens_has_its_share_of_what_these_cost() -> None:
    told = answer(part(0, 0.2, tokens=1950, share=0.5, share_ci=None), part(1, 0.05))
    # 0.2 is half of what the candidate loses there
    assert "50.0 % of the 0.400 nats per token that the whole candidate loses on the first 1,950 tokens" in told
    assert "75.0 [71.0, 79.0] % of what it loses on all 3,900 tokens" in told
    bare = answer(part(0, 0.2, tokens=1950, share=None, share_ci=None))
    assert "costs 0.200 nats per token on the first 1,950 tokens." in bare


@pytest.mark.parametrize(
    ("causes", "begins"),
    [
        (("size", "negligible"), "The worst part is layers.0."),
        (("negligible", "size"), "The worst part that costs something for sure is layers.1."),
        (("unsure", "size"), "The worst part that costs something for sure is layers.1."),
        (("negligible", "no interval"), "The worst part that is not negligible is layers.1."),
        (("negligible", "negligible"), "300 parts differ, and every one that was looked into is negligible."),
        (("unsure", "negligible"), "300 parts differ, and none of those that were looked into is shown to cost"),
        (("unsure", "unsure"), "300 parts differ, and none of those that were looked into is shown to cost"),
    ],
)
def test_only_a_part_that_costs_something_for_sure_is_the_worst(causes: tuple[str, str], begins: str) -> None:
    kinds = {"unsure": {"cause": "unclear", "shown": False}, "no interval": {"cause": "size", "shown": None}}
    sites = [part(layer, 0.2 - 0.1 * layer, **kinds.get(cause, {"cause": cause})) for layer, cause in enumerate(causes)]
    told = answer(*sites)
    assert told.startswith(begins)
    if "differ," in begins:
        assert "costs most, layers.0.mlp.up_proj, costs 50.0 " in told
        assert "(3.1 times what noise of the same norm costs)" in told
        assert "worst" not in told


def test_a_layer_that_holds_the_worst_part_and_costs_more_is_named() -> None:
    for tokens, held in ((3900, True), (1950, False)):
        layer = site("layers.0", 0.25, kind="layer", layer=0, tokens=tokens)
        told = answer(layer, part(0, 0.2))
        assert ("layers.0, which holds it, costs 0.250 nats per token in all" in told) is held


def test_the_answer_names_what_the_worst_part_is_the_worst_of() -> None:
    worst = part(0, 0.2)
    other_kinds = {"other_kinds": {"layer": 3}}
    assert answer(worst, search=other_kinds).startswith("The worst part is ")
    modules = {"levels": ["module", "heads"]}
    assert answer(worst, search=other_kinds, request=modules).startswith(
        "The worst part among linear modules and groups of heads is "
    )
    two = {"layers": [0, 1]}
    assert answer(worst, request=two).startswith("The worst part in the 2 layers asked for is ")
    assert answer(worst, request={"layers": [1]}).startswith("The worst part in the one layer asked for is ")
    assert answer(worst, search={"untried": 2}, request=two).startswith(
        "The worst part of those that were tried in the 2 layers asked for is "
    )


def test_parts_that_are_finite_nowhere_lead_the_answer() -> None:
    names = [f"layers.{n}" for n in range(6)]
    broken = [{"name": name, "kind": "layer", "layer": 0, "tokens": 9} for name in names]
    one = answer(part(7, 0.2), nowhere_finite=broken[:1])
    assert one.startswith("The worst part is layers.0: alone in the reference")
    assert "The worst part of the others is layers.7.mlp.up_proj" in one
    many = answer(part(7, 0.2), nowhere_finite=broken)
    assert many.startswith("The worst parts are layers.0, layers.1, layers.2, layers.3 and 2 more: ")
    alone = answer(nowhere_finite=broken[:1])
    assert alone.endswith("No other part was measured.")
    assert "budget" not in alone and "for sure" not in alone
    assert "none of the others that were measured" in answer(part(7, 0.2), looked=[], nowhere_finite=broken[:1])


def test_a_budget_is_blamed_only_if_something_that_was_asked_for_differs() -> None:
    assert (
        answer(search={"considered": 9, "measured": 0}) == "9 parts differ, and the budget did not reach any of them."
    )
    some = {"considered": 1, "measured": 0, "other_kinds": {"layer": 1}}
    assert answer(search=some).startswith("1 part of the chosen kinds differs, and the budget")
    kinds = NOTHING | {"other_kinds": {"module": 4, "layer": 1, "heads": 2}}
    assert answer(search=kinds, request={"levels": ["norm", "expert"]}) == (
        "No norm or expert differs, and nothing outside the layers; what does differ: 1 layer, 4 linear modules and 2 "
        "groups of heads."
    )
    assert answer(search=kinds, request={"levels": ["norm"], "layers": [1, 2]}).startswith(
        "No norm in layers 1, 2 differs; what does differ: 1 layer"
    )
    elsewhere = NOTHING | {"elsewhere": {"layer": 1, "head": 1}, "elsewhere_layers": [1]}
    assert answer(search=elsewhere, request={"layers": [3]}) == (
        "No part of layer 3 differs; elsewhere there differ 1 layer and 1 head, in layer 1."
    )
    assert answer(search=NOTHING).startswith("No part differs: ")


def gaps(*sites: Json, alignment: Json | None = None) -> str:
    body = attribute_variants()["other-depth"] | {"sites": list(sites)}
    if alignment is not None:
        block = internals_blocks.alignment() | alignment
        body |= {"internals": internals_blocks.dense(alignment=block).model_dump(mode="json")}
    return sentence(AttributeReport.model_validate(body))


def gap(name: str, nats: float, **changes: Any) -> Json:
    return site(name, nats, kind="gap", layer=3, **({"cause": "removed", "shown": True} | changes))


def test_the_worst_gap_has_its_share_its_text_and_why_parts_were_not_swapped() -> None:
    measured = {"windows": 1, "tokens": 210, "documents": 1}
    told = gaps(gap("dropped layer 5", 0.4, share_ci=None), alignment={"measured": measured})
    assert told.startswith("The worst gap is dropped layer 5, which alone costs 100 % of the 1.10 nats per token")
    assert "on 210 tokens of 1 document, which is too little text for an interval; parts were not swapped: " in told
    assert "30 and 24 layers" in told
    assert gaps().startswith("No part was swapped: the models have 30 and 24 layers")


@pytest.mark.parametrize(
    ("matched", "ends"),
    [
        ({"mean": 0.61, "ci": None}, "cost 0.610 nats per token, more than any gap."),
        ({"mean": 0.61, "ci": (0.0, 1.2)}, "cost 0.61 [0.00, 1.20] nats per token."),
        ({"mean": 0.0, "ci": (0.0, 0.0)}, "parts were not swapped: layers do not match."),
    ],
)
def test_what_both_models_have_is_named_if_it_costs_something(matched: Json, ends: str) -> None:
    body = attribute_variants()["other-depth"] | {"not_swapped": "layers do not match"}
    block = internals_blocks.alignment() | {"matched": matched}
    body |= {"internals": internals_blocks.dense(alignment=block).model_dump(mode="json")}
    assert sentence(AttributeReport.model_validate(body)).endswith(ends)


def test_a_gap_is_the_worst_only_if_it_costs_something_for_sure() -> None:
    unsure = gap("dropped layer 2", 0.6, shown=False, cause="unclear")
    shown = gap("dropped layer 8", 0.2)
    mild = gap("added layer 4", 0.0, cause="negligible", shown=None, share=None, share_ci=None)
    assert gaps(unsure, shown).startswith("The worst gap that costs something for sure is dropped layer 8")
    assert gaps(shown, unsure, mild).startswith("The worst gap is dropped layer 8, which alone costs 0.200 nats")
    assert gaps(mild).startswith("Every gap is negligible: the one that costs most, added layer 4, costs 0 nats")
    assert gaps(unsure, mild).startswith("No gap is shown to cost anything alone: the one that costs most, dropped")


def test_runs_of_layers_are_named_by_their_ends() -> None:
    named = {(3,): "layer 3", (1, 2): "layers 1, 2", (0, 1, 2, 5): "layers 0–2, 5"}
    assert {numbers: layers_in_words(numbers) for numbers in named} == named
