"""The view of a surface report: what its page and terminal say."""

import io
import math

import pytest
from rich.console import Console

from app.contracts.surface_report import SurfaceReport
from app.web.report import render
from app.web.sections.surface import surface
from app.web.sections.surface_tables import limit_interval, limit_text
from app.web.sections.surface_words import answer, grid, heading, label, name, orders_note, outcome, setting
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.surface_reports import surface_variants

VARIANTS = surface_variants()


def report(name):
    return SurfaceReport.model_validate(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_report_renders(name):
    page = render(VARIANTS[name])
    assert "<script" not in page
    assert 'id="interactions"' in page


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [80, 130])
def test_every_report_prints_in_a_terminal(name, width):
    stream = io.StringIO()
    render_terminal(VARIANTS[name], Console(file=stream, width=width))
    text = stream.getvalue()
    assert heading(report(name)).upper() in text
    assert "The cheapest path" in text
    assert max(map(len, text.splitlines())) <= width


def test_the_title_and_the_terminal_tell_both_knobs_and_not_the_chosen_setting_alone():
    found = report("both-orders")
    knobs = f"{name(found, 0)} × {name(found, 1)}, chosen "
    assert knobs in render(VARIANTS["both-orders"]).split("</title>")[0]
    stream = io.StringIO()
    render_terminal(VARIANTS["both-orders"], Console(file=stream, width=200))
    assert f"Settings: {grid(found)}." in stream.getvalue()
    assert grid(found).startswith("sparsity left out, ") and " × bits left out, " in grid(found)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            "both-orders",
            "smollm2-135m · prune.magnitude with sparsity from 0.2 to 0.7 (5 values), then quantize.rtn with bits from "
            "8 to 3 (4 values)",
        ),
        ("one-step", "smollm2-135m · quantize.rtn with bits from 8 to 3 (4 values) and group_size from 32 to null"),
    ],
)
def test_the_page_is_headed_by_both_knobs_and_their_ranges(of, said):
    assert tree(render(VARIANTS[of])).one("h1").text.startswith(said)


def test_a_surface_that_holds_no_request_is_headed_by_its_knobs():
    assert tree(render(VARIANTS["both-orders"] | {"request": None})).one("h1").text == "smollm2-135m · sparsity × bits"


def test_the_heading_says_whether_they_add_up():
    assert heading(report("both-orders")) == "They compound"
    assert heading(report("adds-up")) == "They add up within 0.25 nats"
    sure = report("adds-up")
    unsure = [row.model_copy(update={"kind": "no_departure_shown"}) for row in sure.interactions[:1]]
    found = sure.model_copy(update={"interactions": (*unsure, *sure.interactions[1:])})
    assert heading(found) == "No departure from adding up shown"


def departing(kinds):
    """A report of both orders with so many interactions of a kind in each: −0.1 where they overlap, +0.04 else."""
    found = report("both-orders")
    left, rows = dict(kinds), []
    for row in found.interactions:
        kind = next((kind for (order, kind), count in left.items() if count and order == row.order), None)
        if kind is not None:
            left[row.order, kind] -= 1
        nats = row.nats.model_copy(update={"mean": {"overlaps": -0.1, "compounds": 0.04}.get(kind, 0.001)})
        rows.append(row.model_copy(update={"kind": kind or "no_departure_shown", "nats": nats}))
    return found.model_copy(update={"interactions": tuple(rows)})


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({("as given", "overlaps"): 1, ("reversed", "compounds"): 1}, "They overlap at 1 of 20 settings"),
        ({("as given", "overlaps"): 10}, "They overlap at 10 of 20 settings"),
        ({("as given", "overlaps"): 11}, "They overlap"),
        (
            {("as given", "overlaps"): 19, ("as given", "additive_within_margin"): 1},
            "They overlap at 19 of 20 settings",
        ),
        ({("as given", "compounds"): 20}, "They compound"),
        ({("as given", "compounds"): 3}, "They compound at 3 of 20 settings"),
        ({("reversed", "compounds"): 3}, "No departure from adding up shown"),
        (
            {("as given", "overlaps"): 1, ("as given", "compounds"): 2},
            "Mixed: they compound at 2 and overlap at 1 of 20 settings",
        ),
    ],
)
def test_the_heading_speaks_of_the_order_that_was_given(kinds, words):
    found = departing(kinds)
    assert heading(found) == words
    assert ", steps exchanged" not in surface(found).figures[-1].note


def test_an_overlap_is_not_painted_like_damage():
    view = surface(departing({("as given", "overlaps"): 1, ("as given", "compounds"): 1}))
    svg = str(view.interactions_chart)
    assert svg.count('class="heat c7 cool"') == 1, "the overlap is the largest"
    assert svg.count('class="heat h3"') == 1
    assert svg.count('class="heat h0"') == 18, "nothing is shown of the others"


def test_the_smallest_setting_within_the_loss_is_told_with_its_size():
    found = report("both-orders")
    chosen = found.chosen
    where = setting(found, chosen.first, chosen.second)
    assert outcome(found).lower().startswith(where)
    assert "is the smallest changed setting within 0.05 nats a token for sure" in outcome(found)
    sure = [one for one in found.points if one.within == "yes"]
    point = next(one for one in sure if (one.first, one.second) == (chosen.first, chosen.second))
    assert point.sparse_bytes == min(one.sparse_bytes for one in sure)


def test_where_none_is_within_it_says_so():
    found = report("none-within")
    assert outcome(found).startswith("No changed setting is shown to be within 2: all are beyond it.")
    assert not surface(found).good


def test_every_interaction_is_a_row_with_interval_and_p():
    view = surface(report("both-orders"))
    assert len(view.interactions.rows) == 40
    first = report("both-orders").interactions[0]
    low, high = first.nats.ci
    assert any(f"{value:.5f}"[:6] in view.interactions.rows[0][1].note for value in (low, high)) or (
        "×10" in view.interactions.rows[0][1].note
    )
    assert {row[4].text for row in view.interactions.rows} <= {
        "compounds",
        "overlaps",
        "no departure shown",
        "adds up within 0.01",
    }
    assert "±0.01 nats" in view.interactions_note


def test_every_domain_is_a_row_and_one_of_few_documents_has_no_interval():
    view = surface(report("both-orders"))
    assert {row[0].text for row in view.domains.rows} == {"prose", "code", "chat"}
    assert all(row[2].note.startswith("[") for row in view.domains.rows)
    some = report("both-orders")
    code = report("broken").domains["code"]
    some = some.model_copy(update={"domains": some.domains | {"code": code}})
    few = surface(some)
    row = next(row for row in few.domains.rows if row[0].text == "code")
    assert {cell.note for cell in row[1:]} == {""}
    assert (row[4].text, row[5].text) == ("–", "too few documents")
    page = render(some.model_dump(mode="json"))
    assert page.count("fewer than six documents") == 1, "said once, below the table"
    assert "fewer than six" in few.domains_note and "fewer than six" not in view.domains_note
    old = report("both-orders").model_copy(update={"domains": {}, "margin": None})
    assert surface(old).domains.rows == () and 'id="domains"' not in render(old.model_dump(mode="json"))


def printed(found, width=100):
    stream = io.StringIO()
    render_terminal(found, Console(file=stream, width=width))
    return stream.getvalue()


def test_where_no_domain_can_be_judged_a_line_says_so_in_place_of_the_table():
    line = "No domain can be judged alone: each has too few documents (chat 1, code 1, prose 2)."
    view = surface(report("broken"))
    assert view.domains.rows == () and view.domains_note == line
    section = tree(render(VARIANTS["broken"])).one(id_="domains")
    assert section.text.split() == ["By", "domain", *line.split()]
    text = printed(VARIANTS["broken"])
    assert line in text and "By domain" not in text


def test_where_no_changed_setting_is_within_nothing_is_recommended_and_the_mildest_is_told_as_such():
    body = VARIANTS["nothing-changed-within"]
    found = report("nothing-changed-within")
    assert next(one for one in found.points if not one.recipe).within == "yes"
    assert not found.chosen.within and found.chosen.recipe
    where = setting(found, found.chosen.first, found.chosen.second, found.chosen.order)
    told = outcome(found)
    assert told.startswith("No changed setting is shown to be within 0.0005 nats a token: ")
    assert told.endswith(f"{where[:1].upper()}{where[1:]} loses least of them. Nothing is recommended.")
    losses = [one.loss.mean for one in found.points if one.recipe]
    assert min(losses) == next(
        one.loss.mean for one in found.points if (one.first, one.second) == (found.chosen.first, found.chosen.second)
    )
    page = render(body)
    assert "Take." not in page and "hosen setting" not in page
    assert "What the mildest setting loses" in page and "Excess KL of the mildest setting" in page
    title = tree(page).one("title").text.strip()
    assert title.startswith(f"{answer(found)}: ") and "; no changed setting shown to be within the loss: " in title
    text = " ".join(printed(body, 200).split())
    assert f"The mildest setting ({where}) loses" in text and "At the mildest setting: A true excess KL" in text
    assert '"type"' not in text, "no recipe to take"


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (("no", "no", "no"), ": all are beyond it."),
        (("undecided", "no", "no"), ": 1 of 3 is undecided, the others beyond it."),
        (("undecided", "undecided", "no"), ": 2 of 3 are undecided, the others beyond it."),
        (("undecided", "undecided", "undecided"), ": all are undecided."),
    ],
)
def test_how_many_settings_are_undecided_is_told_where_none_is_within(within, said):
    found = report("nothing-changed-within")
    changed = [one for one in found.points if one.recipe][:3]
    points = [one.model_copy(update={"within": told}) for one, told in zip(changed, within, strict=True)]
    unmodified = [one for one in found.points if not one.recipe]
    assert said in outcome(found.model_copy(update={"points": (*unmodified, *points)}))


def test_an_old_report_that_chose_the_unmodified_model_recommends_nothing():
    found = report("nothing-changed-within")
    chosen = found.chosen.model_copy(
        update={"first": 0, "second": 0, "order": "as given", "within": True, "recipe": ()}
    )
    old = found.model_copy(update={"chosen": chosen})
    assert outcome(old).endswith(". Nothing is recommended.") and "loses least" not in outcome(old)
    assert not surface(old).good and surface(old).told_of == "unmodified model"
    assert "Take." not in render(old.model_dump(mode="json"))
    within = [one.model_copy(update={"within": "yes"}) for one in old.points]
    saved = old.model_copy(update={"points": tuple(within)})
    assert answer(saved).endswith("; no changed setting within the loss is smaller")
    assert surface(saved).figures[0].note == "no changed setting within the loss is smaller"
    told = outcome(saved)
    assert told.startswith(
        "No changed setting within 0.0005 nats a token for sure is smaller than the unmodified model."
    )


def test_a_chosen_setting_that_saves_nothing_is_told_as_such():
    found = report("both-orders")
    assert "takes no less" not in outcome(found)
    larger = [one.model_copy(update={"sparse_bytes": 10 if one.recipe else 9}) for one in found.points]
    assert " It takes no less than the unmodified model. " in outcome(
        found.model_copy(update={"points": tuple(larger)})
    )


def test_limits_tell_ends_beyond_the_range():
    found = report("adds-up")
    texts = [limit_text(found, limit) for limit in found.contour.limits]
    assert any(text.startswith("beyond") for text in texts) or all(
        limit.place is not None for limit in found.contour.limits
    )
    template = found.contour.limits[0]
    assert limit_text(found, template.model_copy(update={"place": None})) == "beyond 0.7"
    assert limit_text(found, template.model_copy(update={"place": 0.0, "largest": None})) == "already passed"
    assert limit_text(found, template.model_copy(update={"value": None, "place": 1.5})) == "0.2 to 0.35"
    assert limit_interval(found, template.model_copy(update={"ci": (0.2, None)})) == "from 0.200 to beyond"
    assert limit_interval(found, template.model_copy(update={"ci": (8.0, 6.0)})) == "[6.00, 8.00]"
    assert limit_interval(found, template.model_copy(update={"ci": (None, None)})) == "beyond the range"
    assert limit_interval(found, template.model_copy(update={"ci": None})) == "too few documents"


def of_rank(**changed):
    """A report whose first knob is a rank in a step of its own, and its first limit so changed."""
    found = report("adds-up")
    knob = found.knobs[0].model_copy(update={"field": "rank", "values": (None, 256, 128, 64, 32, 16), "zero": None})
    limit = found.contour.limits[0].model_copy(update=changed)
    contour = found.contour.model_copy(update={"limits": (limit, *found.contour.limits[1:])})
    return found.model_copy(update={"knobs": (knob, found.knobs[1]), "contour": contour})


@pytest.mark.parametrize(
    ("limit", "text", "interval"),
    [
        ({"place": 2.14, "value": 119.1, "ci": (2.0, 3.0), "largest": 2}, "119", "[64.0, 128]"),
        ({"place": 2.14, "value": 119.1, "ci": (2.25, None), "largest": 2}, "119", "from 112 to beyond"),
        ({"place": 1.5, "value": 192.0, "ci": (0.0, 2.0), "largest": 1}, "192", "[left out, 128]"),
        ({"place": 0.5, "value": None, "ci": (0.0, 1.0), "largest": 0}, "left out to 256", "[left out, 256]"),
        ({"place": 0.5, "value": None, "ci": (0.0, None), "largest": 0}, "left out to 256", "from left out to beyond"),
    ],
)
def test_a_limit_and_its_interval_are_in_one_unit(limit, text, interval):
    found = of_rank(**limit)
    row = surface(found).limits.rows[0]
    assert (row[2].text, row[3].text) == (text, interval)
    table = printed(found.model_dump(mode="json"), 130).split("How far before ")[1]
    line = next(line for line in table.splitlines() if " rank " in line)
    assert text in line and interval in line


@pytest.mark.parametrize(
    ("refused", "why"), [("", "0.2 gives no finite logits"), ("no such layer", "the model cannot take 0.2")]
)
def test_before_a_collapse_the_mildest_setting_is_not_said_to_be_passed(refused, why):
    found = report("adds-up")
    points = [
        one.model_copy(update={"refused": refused, "loss": one.loss.model_copy(update={"mean": None, "ci": None})})
        if (one.first, one.second) == (1, 0)
        else one
        for one in found.points
    ]
    limit = found.contour.limits[0].model_copy(update={"place": 0.0, "value": 0.0, "ci": (0.0, 0.2), "largest": 0})
    contour = found.contour.model_copy(update={"limits": (limit, *found.contour.limits[1:])})
    found = found.model_copy(update={"points": tuple(points), "contour": contour})
    row = surface(found).limits.rows[0]
    assert [cell.text for cell in row[2:]] == [f"left out; {why}", "[0, 0.200]", "left out"]
    text = printed(found.model_dump(mode="json"), 200)
    assert f"left out; {why}" in text
    beyond = limit.model_copy(update={"largest": None})
    assert limit_text(found, beyond) == "already passed"
    nowhere = [
        one.model_copy(update={"refused": refused, "loss": one.loss.model_copy(update={"mean": None, "ci": None})})
        if (one.first, one.second) == (0, 0)
        else one
        for one in points
    ]
    told = limit_text(found.model_copy(update={"points": tuple(nowhere)}), beyond)
    assert told == why.replace("0.2", "left out")


def test_the_path_says_that_the_steps_were_exchanged_where_no_knob_was_turned():
    found = report("both-orders")
    step = found.path[0]
    places = [(0, 1, "as given"), (1, 1, "reversed"), (1, 1, "as given"), (1, 2, "as given"), (2, 0, "as given")]
    words = ["start", "first", "second", "second", "traded"]
    rows = tuple(
        step.model_copy(update={"first": p, "second": q, "order": order, "turned": turned})
        for (p, q, order), turned in zip(places, words, strict=True)
    )
    old = found.model_copy(update={"path": rows})
    told = [row[-1].text for row in surface(old).path.rows]
    assert told == [
        "the largest",
        "sparsity turned, steps exchanged",
        "steps in the order as given again",
        "bits turned",
        "one turned back for the other",
    ]
    text = printed(old.model_dump(mode="json"), 200)
    assert all(line in text for line in told)


def test_the_furthest_setting_within_is_told_by_the_mean_and_for_sure():
    found = report("both-orders")
    furthest = found.contour.limits[0].largest
    points = [
        one.model_copy(update={"within": "undecided", "loss": one.loss.model_copy(update={"ci": (0.0, 1.0)})})
        if (one.first, one.second, one.order) == (furthest, 0, "as given")
        else one
        for one in found.points
    ]
    found = found.model_copy(update={"points": tuple(points)})
    rows = surface(found).limits.rows
    within = {
        (one.first, one.second): (one.loss.mean, one.loss.ci[1]) for one in found.points if one.order == "as given"
    }
    level, differ = found.contour.level, 0
    for limit, row in zip(found.contour.limits, rows, strict=True):
        which = 0 if limit.knob == "first" else 1
        places = range(len(found.knobs[which].values))
        line = [within[(place, limit.at) if which == 0 else (limit.at, place)] for place in places]
        told = []
        for bound in (0, 1):
            count = next((place for place in places if line[place][bound] > level), len(line))
            told.append(label(found, which, count - 1) if count else None)
        assert row[-1].text == (told[0] or "–")
        assert row[-1].note == ("" if told[0] == told[1] else f"for sure: {told[1] or 'none'}")
        differ += told[0] != told[1]
    assert differ


def test_a_small_interaction_does_not_read_as_none_in_the_chart():
    found = report("adds-up")
    rows = list(found.interactions)
    for place, mean in enumerate((4.6e-4, -4.6e-4, 0.0)):
        rows[place] = rows[place].model_copy(update={"nats": rows[place].nats.model_copy(update={"mean": mean})})
    svg = str(surface(found.model_copy(update={"interactions": tuple(rows)})).interactions_chart)
    assert svg.count(">+5×10⁻⁴<") == 1 and svg.count(">−5×10⁻⁴<") == 1 and svg.count(">0<") == 1


def test_orders_are_told():
    assert "Only the order of the steps as given" in orders_note(report("adds-up"))
    text = orders_note(report("both-orders"))
    assert text.startswith("Exchanging the two steps makes a difference in ln PPL at ")
    assert "better at 0" in text


def test_each_measure_of_an_order_effect_has_its_own_p():
    found = report("both-orders")
    first, *others = found.order_effects
    none = [row.model_copy(update={"p": 1.0, "p_kl": 1.0}) for row in others]
    split = first.model_copy(update={"p": 0.4, "p_kl": 0.003})
    view = surface(found.model_copy(update={"order_effects": (split, *none)}))
    heads = [column.label for column in view.orders.columns]
    row = dict(zip(heads, view.orders.rows[0], strict=True))
    assert (row["p of ln PPL, corrected"].text, row["p of KL, corrected"].text) == ("0.400", "0.003")
    assert view.orders.rows[0][-1].text == "as given is better by KL"
    assert view.orders_note.startswith(
        "Exchanging the two steps makes a difference in KL at 1 of 20 settings (better at 0, worse at 1)"
    )
    where = f"{row['Setting'].text} ({row['KL, nats a token'].text} {row['KL, nats a token'].note} nats a token)"
    assert f"worse at 1), at {where}, by Holm" in view.orders_note
    three = [effect.model_copy(update={"p": 0.01, "p_kl": 1.0}) for effect in found.order_effects[:3]]
    named = orders_note(found.model_copy(update={"order_effects": (*three, *none[2:])}))
    assert all(setting(found, effect.first, effect.second) in named for effect in three)
    every = tuple(effect.model_copy(update={"p": 0.01, "p_kl": 1.0}) for effect in found.order_effects)
    largest = max(every, key=lambda effect: abs(effect.log_perplexity.mean))
    told = orders_note(found.model_copy(update={"order_effects": every}))
    assert f", most at {setting(found, largest.first, largest.second)} (" in told and told.count("nats a token") == 1
    both = surface(found.model_copy(update={"order_effects": (split.model_copy(update={"p": 0.01}), *none)}))
    assert both.orders.rows[0][-1].text == "as given is better by ln PPL and KL"
    assert {row[-1].text for row in both.orders.rows[1:]} == {"no difference shown"}


def test_the_terminal_shows_the_difference_in_kl_that_it_tells():
    found = report("both-orders")
    first, *others = found.order_effects
    none = [row.model_copy(update={"p": 1.0, "p_kl": 1.0}) for row in others]
    split = first.model_copy(update={"p": 0.4, "p_kl": 0.003})
    stream = io.StringIO()
    changed = found.model_copy(update={"order_effects": (split, *none)})
    render_terminal(changed.model_dump(mode="json"), Console(file=stream, width=100))
    table = stream.getvalue().split("Exchanged order minus order as given")[1]
    rows = [line.split() for line in table.splitlines() if f" {setting(found, first.first, first.second)} " in line]
    assert ["ln" in row for row in rows] == [True, False]
    assert rows[0][-1] == "0.400" and "KL" in rows[1] and rows[1][-1] == "0.003"
    assert sum(line.split()[4:5] == ["KL"] for line in table.splitlines() if "sparsity" in line) == 1


def test_knobs_of_one_step_begin_at_their_first_values():
    found = report("one-step")
    assert setting(found, 0, 0) == "bits 8, group_size 32"
    assert any("Both knobs are in one step" in warning for warning in found.warnings)
    assert orders_note(found) == "Both knobs are in one step: there is no other order."


def test_what_is_not_finite_or_refused_is_told():
    page = render(VARIANTS["broken"])
    assert "could not be made" in page
    assert "logits that are not finite" in page
    point = next(one for one in report("broken").points if one.refused)
    assert point.kl.mean is None
    assert point.within == "no"


def test_the_path_falls_in_size_and_rises_in_loss():
    path = report("both-orders").path
    sizes, losses = [row.bytes for row in path], [row.loss.mean for row in path]
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert path[0].turned == "start"


def test_the_chart_names_every_setting_to_readers_of_the_screen():
    found = report("adds-up")
    svg = str(surface(found).loss)
    assert svg.count("<rect") == 30
    assert "sparsity 0.7, bits 3" in svg
    assert svg.count('class="contour"') >= 3
    level = found.contour.level
    line = found.contour.lines[0]
    table = {(one.first, one.second): one.loss.mean for one in found.points}
    for p, q in line:
        low = (math.floor(p), math.floor(q))
        high = (math.ceil(p), math.ceil(q))
        part = (p - low[0]) if low[0] != high[0] else (q - low[1])
        one, other = table[low], table[high]
        if min(one, other) > level / 1000:  # KL grows by factors
            assert one ** (1 - part) * other**part == pytest.approx(level, rel=1e-6)
        else:
            assert one + part * (other - one) == pytest.approx(level, rel=1e-6)
