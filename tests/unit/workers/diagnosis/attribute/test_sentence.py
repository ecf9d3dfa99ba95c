"""What a report says of its parts, in a sentence."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from app.contracts.report import Mean
from app.kinds.attribute.report import Explained
from app.kinds.attribute.report import Site as Told
from tests.support import internals_blocks
from tests.support.attribute_reports import site
from tests.support.searching import ASKED, HEAD, LAYERS, MODULES, broken_search, search
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.scope import Scope
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sentence import sentence


class Where:
    """Scored positions, of which the documents alone are asked."""

    def __init__(self, document: np.ndarray) -> None:
        self.document = document

    def __len__(self) -> int:
        return len(self.document)


def verdict(done: Search) -> str:
    worst = Told.model_validate(site("layers.0", 0.2, kind="layer", layer=0))
    unknown = Mean(mean=None, ci=None)
    looking = SimpleNamespace(first=[LAYERS[0]], explained=Explained(sites=("layers.0",), nats=unknown, share=unknown))
    found = SimpleNamespace(not_swapped="", scope=ASKED, search=done, whole=None, subset=None)
    return sentence((worst,), cast("Any", looking), cast("Found", found))


def test_the_verdict_speaks_of_those_that_were_tried() -> None:
    done = search(LAYERS[0], LAYERS[3], left_out=(LAYERS[1], LAYERS[2], HEAD))
    assert verdict(done).startswith("The worst part of those that were tried is layers.0")
    parts = search(*LAYERS, MODULES[0], left_out=(MODULES[1], MODULES[2], MODULES[3]))
    assert verdict(parts).startswith("The worst part is layers.0")


def test_the_verdict_on_some_layers_is_of_these_and_of_the_whole_candidate() -> None:
    worst = Told.model_validate(site("layers.0", 0.2, kind="layer", layer=0))
    unknown = Mean(mean=None, ci=None)
    looking = SimpleNamespace(first=[LAYERS[0]], explained=Explained(sites=("layers.0",), nats=unknown, share=unknown))

    def told(done: Search) -> str:
        scope = Scope(layers=(0, 1), chosen=tuple(LAYERS[:2]))
        found = SimpleNamespace(not_swapped="", scope=scope, search=done, whole=None, subset=None)
        return sentence((worst,), cast("Any", looking), cast("Found", found))

    some = told(search(*LAYERS[:2]))
    assert some.startswith("The worst part of the 2 layers asked for is layers.0, which alone costs 50 %")
    assert "nats a token that the whole candidate costs on the" in some
    assert "all of them" not in some
    assert told(search(LAYERS[0], left_out=(LAYERS[1],))).startswith(
        "The worst part of those that were tried in the 2 layers asked for is layers.0"
    )
    assert told(broken_search(LAYERS[1], fine=(LAYERS[0],))).startswith(
        "The worst part of the 2 layers asked for is layers.1: alone in the reference it leaves no logits finite"
    )
    assert "that all of them cost on the" in verdict(search(*LAYERS))


_TOLD = {"not shown": {"cause": "unclear", "shown": False}, "sure": {"cause": "size", "shown": True}}


def test_the_worst_part_says_on_how_much_text_it_was_swapped_and_whether_that_is_too_little() -> None:
    def told(**changes: Any) -> str:
        worst = Told.model_validate(site("layers.0", 0.2, kind="layer", layer=0, **changes))
        unknown = Mean(mean=None, ci=None)
        looking = SimpleNamespace(
            first=[LAYERS[0]], explained=Explained(sites=("layers.0",), nats=unknown, share=unknown)
        )
        subset = SimpleNamespace(where=Where(np.array([0, 0, 1])))
        found = SimpleNamespace(not_swapped="", scope=ASKED, search=search(*LAYERS), whole=None, subset=subset)
        return sentence((worst,), cast("Any", looking), cast("Found", found))

    assert "cost on the 3 tokens of 2 documents they were swapped on." in told()
    assert "cost on the 3 tokens of 2 documents they were swapped on, which is too little text for an" in told(
        share_ci=None
    )


def partly_measured(sites: list[Told], *first: str, whole_model: bool = True, full: np.ndarray | None) -> str:
    """The verdict where parts were swapped on six tokens of three documents, on which the whole costs 0.9 nats."""
    unknown = Mean(mean=None, ci=None)
    share = Mean(mean=0.5, ci=None)
    looked = [next(one for one in (*LAYERS, *MODULES) if one.name == name) for name in first]
    looking = SimpleNamespace(first=looked, explained=Explained(sites=first, nats=unknown, share=share))
    found = SimpleNamespace(
        not_swapped="",
        scope=ASKED if whole_model else Scope(layers=(0, 1), chosen=tuple(LAYERS[:2])),
        search=search(*LAYERS),
        whole=SimpleNamespace(transformers=Mean(mean=0.9, ci=None)),
        subset=SimpleNamespace(where=Where(np.array([0, 0, 0, 1, 1, 2]))),
        full=full,
    )
    return sentence(tuple(sites), cast("Any", looking), cast("Found", found))


def test_a_worst_part_that_saw_the_first_tokens_alone_has_its_share_of_what_these_cost() -> None:
    full = np.array([0.5, np.nan, 0.3, 0.4, 2.0, 2.0], dtype=np.float32)
    seen = Told.model_validate(site("layers.0", 0.2, kind="layer", layer=0, tokens=4))
    told = partly_measured([seen], "layers.0", full=full)
    assert "of the 0.4 nats a token that all of them cost on the 4 tokens of 2 documents that it was measured" in told
    assert "0.9" not in told
    assert "6 tokens" not in told
    other = partly_measured([seen], "layers.0", whole_model=False, full=None)
    assert "of the unknown nats a token that the whole candidate costs on the 4 tokens of 2 documents that" in other
    without = partly_measured([seen.model_copy(update={"share": None})], "layers.0", full=full)
    assert "costs 0.2 nats a token on the 4 tokens of 2 documents that it was measured on." in without
    # those together were swapped on all of it
    both = partly_measured([seen, Told.model_validate(site("layers.1", 0.1))], "layers.0", "layers.1", full=full)
    assert (
        "; the first 2 parts together cost 50 % of the 0.9 nats a token that all of them cost on all 6 tokens of 3 "
        "documents they were swapped on."
    ) in both


def test_what_was_measured_on_all_of_the_text_has_its_share_of_what_all_of_it_costs() -> None:
    seen = Told.model_validate(site("layers.0", 0.2, kind="layer", layer=0, tokens=6))
    told = partly_measured([seen, Told.model_validate(site("layers.1", 0.1))], "layers.0", "layers.1", full=None)
    assert "of the 0.9 nats a token that all of them cost on the 6 tokens of 3 documents they were swapped on;" in told
    assert told.endswith("; the first 2 parts together cost 50 % of it.")


def test_a_layer_is_not_said_to_cost_more_than_its_part_by_nats_of_other_tokens() -> None:
    part = Told.model_validate(site(MODULES[0].name, 0.2, cause="size", shown=True, tokens=6))
    for tokens, told in ((6, True), (4, False)):
        layer = Told.model_validate(site("layers.0", 0.25, kind="layer", layer=0, cause="unclear", tokens=tokens))
        verdict = partly_measured([part, layer], MODULES[0].name, full=None)
        assert ("which holds it" in verdict) is told


def of_two(*causes: str) -> str:
    """`not shown`: a cause that is unclear because no damage is shown; `sure`: of a cause, and shown."""
    sites = []
    for number, (one, cause) in enumerate(zip(LAYERS, causes, strict=False)):
        told: dict[str, Any] = _TOLD.get(cause, {"cause": cause})
        made = site(one.name, 0.2 - 0.1 * number, kind="layer", layer=number, why="so", **told)
        sites.append(Told.model_validate(made))
    unknown = Mean(mean=None, ci=None)
    looking = SimpleNamespace(first=LAYERS[:2], explained=Explained(sites=(), nats=unknown, share=unknown))
    found = SimpleNamespace(not_swapped="", scope=ASKED, search=search(*LAYERS), whole=None, subset=None)
    return sentence(tuple(sites), cast("Any", looking), cast("Found", found))


def test_a_negligible_part_is_never_called_the_worst() -> None:
    assert of_two("size", "negligible").startswith("The worst part is layers.0, which")
    assert of_two("negligible", "sure").startswith("The worst part that costs something for sure is layers.1, which")
    none = of_two("negligible", "negligible")
    assert "every one that was looked into is negligible: the one that costs most, layers.0, costs 50 %" in none
    assert "(so)" in none
    assert "worst" not in none


def test_a_part_whose_damage_is_not_shown_is_neither_the_worst_nor_negligible() -> None:
    assert of_two("not shown", "sure").startswith("The worst part that costs something for sure is layers.1, which")
    for causes in (("not shown", "negligible"), ("negligible", "not shown"), ("not shown", "not shown")):
        none = of_two(*causes)
        assert "none of those that were looked into is shown to cost anything alone: the one that costs most" in none
        assert "layers.0, costs 50 %" in none
        assert "is negligible" not in none
        assert "worst" not in none


def test_where_nothing_was_tried_no_part_leads_the_verdict() -> None:
    done = search(left_out=(*LAYERS, HEAD))
    assert verdict(done) == "9 parts differ, and the budget did not reach for one of them."


def test_where_nothing_that_was_asked_for_differs_the_budget_is_not_blamed() -> None:
    def told(scope: Scope) -> str:
        done = Search(cast("Any", None), scope.chosen, scope.levels, 64.0, 2, cast("Any", None))
        found = SimpleNamespace(not_swapped="", scope=scope, search=done, whole=None, subset=None)
        return sentence((), None, cast("Found", found))

    assert told(Scope(("norm",), other_kinds=(*LAYERS, *MODULES))) == (
        "No norm differs, and nothing outside the layers; what does differ: 4 layers and 4 linear modules."
    )
    assert told(Scope(layers=(3,), elsewhere=(LAYERS[1], MODULES[1]))) == (
        "No part of layer 3 differs; elsewhere 2 parts do: 1 layer and 1 linear module, in layer 1."
    )
    assert told(Scope()) == "No part differs: every weight of the candidate is the reference's."
    unaffordable = Scope(("layer",), chosen=tuple(LAYERS), other_kinds=tuple(MODULES))
    assert told(unaffordable) == "4 parts of the chosen kinds differ, and the budget did not reach for one of them."


def test_a_part_that_is_finite_nowhere_leads_the_verdict() -> None:
    told = verdict(broken_search(LAYERS[2], MODULES[2], fine=(LAYERS[0],)))
    assert told.startswith("The worst parts are layers.2.mlp.up_proj, layers.2: each, alone in the reference, leaves")
    assert "The worst part of the others is layers.0, which" in told
    alone = verdict(broken_search(MODULES[2], fine=(LAYERS[0],)))
    assert alone.startswith("The worst part is layers.2.mlp.up_proj: alone in the reference it leaves no logits finite")


def test_where_every_part_is_finite_nowhere_none_is_said_to_cost_nothing() -> None:
    found = SimpleNamespace(not_swapped="", scope=ASKED, search=broken_search(HEAD), whole=None, subset=None)
    looking = SimpleNamespace(first=[], explained=None)
    told = sentence((), cast("Any", looking), cast("Found", found))
    assert told.startswith("The worst part is lm_head: ")
    assert told.endswith("No other part was measured.")
    assert "budget" not in told
    assert "costs anything" not in told


def gap_verdict(matched: dict[str, Any] | None = None, **changes: Any) -> str:
    told = {"share": 1.0, "share_ci": None, "ci": None} | changes
    worst = Told.model_validate(site("dropped layers 5, 6", 0.445, kind="gap", layer=7, **told))
    block = internals_blocks.alignment() | {
        "total": {"mean": 0.445, "ci": None},
        "measured": {"windows": 1, "tokens": 210, "documents": 1},
    }
    block |= {} if matched is None else {"matched": matched}
    found = SimpleNamespace(
        not_swapped="the models have 30 and 28 layers", internals=internals_blocks.dense(alignment=block)
    )
    return sentence((worst,), None, cast("Found", found))


def test_the_worst_gap_says_on_how_much_text_it_was_measured_and_that_this_is_too_little() -> None:
    assert gap_verdict() == (
        "The worst gap is dropped layers 5, 6, which alone costs 100 % of the 0.445 nats a token that the candidate "
        "loses on the 210 tokens of 1 document that gaps were measured on, which is too little text for an interval; "
        "parts were not swapped: the models have 30 and 28 layers. What both models have, layers, embedding and head, "
        "is changed, too: it costs 0.04 nats (95 % interval 0.032 to 0.048)."
    )
    sure = gap_verdict(share_ci=(0.9, 1.1))
    assert "costs 100 % (95 % interval 90 to 110 %) of the 0.445 nats" in sure
    assert "too little" not in sure


def test_what_stayed_and_costs_more_than_the_worst_gap_are_told() -> None:
    more = gap_verdict(matched={"mean": 0.61, "ci": None})
    assert more.endswith(" and head, is changed, too: it costs 0.61 nats, more than any gap.")
    unsure = gap_verdict(matched={"mean": 0.61, "ci": (0.0, 1.2)})
    assert unsure.endswith("is changed, too: it costs 0.61 nats (95 % interval 0 to 1.2).")
    assert "changed, too" not in gap_verdict(matched={"mean": 0.0, "ci": (0.0, 0.0)})


def test_a_gap_that_costs_more_and_not_for_sure_is_not_passed_over_in_silence() -> None:
    unsure = Told.model_validate(site("dropped layer 2", 0.6, kind="gap", layer=3, shown=False, ci=(0.0, 1.4)))
    shown = Told.model_validate(site("dropped layer 8", 0.2, kind="gap", layer=9, shown=True, ci=(0.1, 0.3)))
    found = SimpleNamespace(not_swapped="the models have 30 and 28 layers", internals=None)
    told = sentence((unsure, shown), None, cast("Found", found))
    assert told.startswith("The worst gap that costs something for sure is dropped layer 8, which alone costs 0.2")
    assert "for sure" not in sentence((shown, unsure), None, cast("Found", found))


def test_a_gap_that_is_negligible_is_not_called_the_worst() -> None:
    mild = Told.model_validate(
        site("added layer 4", 0.0, kind="gap", layer=4, cause="negligible", shown=None, share=None, share_ci=None)
    )
    unsure = Told.model_validate(site("dropped layer 2", 0.6, kind="gap", layer=3, shown=False, cause="unclear"))
    worst = Told.model_validate(site("dropped layer 8", 0.2, kind="gap", layer=9, shown=True, cause="removed"))
    found = SimpleNamespace(not_swapped="the models have 30 and 31 layers", internals=None)

    def told(*sites: Told) -> str:
        return sentence(sites, None, cast("Found", found))

    assert told(mild).startswith("Every gap is negligible: the one that costs most, added layer 4, costs 0 nats")
    assert told(unsure, mild).startswith("No gap is shown to cost anything alone: the one that costs most, dropped ")
    assert told(worst, mild).startswith("The worst gap is dropped layer 8, which alone costs 0.2 nats")


def test_a_layer_that_costs_more_than_the_part_in_it_that_is_blamed_is_told() -> None:
    whole = Told.model_validate(site("layers.0", 0.25, kind="layer", layer=0, cause="unclear"))
    part = Told.model_validate(site(MODULES[0].name, 0.2, kind="module", layer=0, cause="size", shown=True))
    unknown = Mean(mean=None, ci=None)
    looking = SimpleNamespace(first=[MODULES[0]], explained=Explained(sites=(), nats=unknown, share=unknown))
    found = SimpleNamespace(not_swapped="", scope=ASKED, search=search(*LAYERS, *MODULES), whole=None, subset=None)
    told = sentence((whole, part), cast("Any", looking), cast("Found", found))
    assert told.startswith("The worst part is layers.0.mlp.up_proj, which alone costs ")
    assert told.endswith("; layers.0, which holds it, costs 0.25 nats a token in all.")


def test_a_part_without_an_interval_is_not_said_to_cost_something_for_sure() -> None:
    told = of_two("negligible", "size")
    assert "The worst part that is not negligible is layers.1, which" in told
