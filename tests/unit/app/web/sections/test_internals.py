"""What the page says and draws of a model's inside, read back from its markup."""

import re

import pytest
from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import Internals
from app.web.pages import environment
from app.web.sections.activation_growth import activation_growth
from app.web.sections.attention_maps import attention_maps
from app.web.sections.internals import inside_lines, internals
from tests.support import internals_blocks as made
from tests.support.html import tree

NOTHING = {"mean": 0.0, "ci": [0.0, 0.0], "clusters": "documents"}


def page(block: Internals):
    source = '<html><body>{% include "internals.html.j2" %}</body></html>'
    return tree(environment().from_string(source).render(inside=internals(block)))


def text(element):
    return " ".join(element.text.split())


def titles(chart: Markup) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", str(chart))


@pytest.mark.parametrize("block", [made.dense(), made.mixture(), Internals()], ids=["dense", "mixture", "nothing"])
def test_every_chart_can_be_read_aloud(block):
    drawn = page(block)
    for chart in drawn.all("svg"):
        assert chart.children[0].tag == "title"
        assert text(chart.children[0])
    for chart in drawn.all("svg"):
        numbers = re.findall(r"(?:nan|inf)", str(chart.attributes))
        assert numbers == []


def test_the_alignment_names_what_is_gone_and_what_is_new():
    view = internals(made.dense()).alignment
    assert view.sentence == (
        "Without a partner: layer 3 dropped (0.71 [0.57, 0.85] nats); layer 4 inserted, a copy of 4 "
        "(0.220 [0.176, 0.264] nats). The whole candidate loses 1.10 [0.88, 1.32] nats a token."
    )
    boxes = titles(view.picture)
    assert "layer 3 of the reference: layer 3 dropped" in boxes
    assert "layer 4 of the candidate: layer 4 inserted, a copy of 4" in boxes
    assert str(view.picture).count('class="box alone"') == 2
    assert str(view.picture).count('class="match') == len(made.PAIRS)
    assert str(view.similarity).count(' framed"') == len(made.PAIRS)
    first = view.gaps.rows[0]
    assert first[0].note == "found again in 99.5 % of resamplings"
    assert first[1].text == "0.71"
    assert first[3].text == "64.5"
    assert "Control, the reference’s own layers run again: 0 nats." in view.note


def test_without_a_gap_all_layers_are_said_to_match():
    block = made.alignment() | {"gaps": [], "control": None}
    view = internals(made.dense(alignment=block)).alignment
    assert view.sentence == "All 6 layers of the two models stand for each other, in order."
    assert view.gaps.rows == ()


def test_the_worst_head_is_named_and_every_head_has_a_cell():
    view = internals(made.dense()).attention
    assert "most in head 2 of layer 3 of the candidate (4 of the reference): 0.240 [0.192, 0.288]." in view.sentence
    assert (view.worst.rows[0][1].text, view.worst.rows[0][1].note) == ("0.240", "[0.192, 0.288]")
    cells = [title for title in titles(view.heads) if title.startswith("layer")]
    assert len(cells) == len(made.PAIRS) * made.HEADS
    assert "layer 4→3, head 2: 0.240 nats" in cells
    assert view.worst.rows[0][0].text == "4→3, 2"
    assert (view.worst.rows[0][2].text, view.worst.rows[0][2].note) == ("0.96", "[0.77, 1.15]")
    darkest = re.search(r'<rect[^>]*class="cell h7"[^>]*><title>(.*?)</title>', str(view.heads))
    assert darkest is not None
    assert darkest.group(1) == "layer 4→3, head 2: 0.240 nats"


def test_attention_by_layer_has_every_layer_and_shows_where_layers_are_missing():
    view = internals(made.dense()).attention
    told = [title for title in titles(view.divergence) if title.startswith("all heads")]
    places = [title.split(": ")[0] for title in told]
    assert places == [f"all heads of a layer, layer of the candidate {layer}" for _, layer in made.PAIRS]
    assert told[1].endswith(": 0.0200 [0.0160, 0.0240] nats")
    assert str(view.divergence).count(">gap</text>") == 2  # the dropped layer, and the copy


def test_equal_attention_is_said_to_be_equal():
    block = made.attention() | {"js": NOTHING}
    assert internals(made.dense(attention=block)).attention.sentence == (
        "Every head looks exactly where the reference’s looks."
    )


@pytest.mark.parametrize(
    ("cascade", "says"),
    [
        (made.mean(1.8, 0.3), "a cascade"),
        (made.mean(0.5, 0.2), "no cascade"),
        (made.mean(1.1, 0.3), "neither a cascade nor damping for sure"),
        ({"mean": 7.9, "ci": None}, "without an interval, neither a cascade nor damping is told"),
    ],
)
def test_a_cascade_is_called_one_where_its_interval_says_so(cascade, says):
    view = internals(made.dense(activations=made.activations() | {"cascade": cascade})).growth
    assert view.sentence.endswith(f"{says}.")


@pytest.mark.parametrize(
    ("cascade", "says"),
    [
        (made.mean(1.8, 0.3), "later layers amplify it; no errors add up"),
        (made.mean(0.5, 0.2), "later layers damp it"),
        (made.mean(1.1, 0.3), "that later layers amplify it or damp it is not sure"),
        ({"mean": 7.9, "ci": None}, "without an interval, whether later layers amplify it or damp it is not told"),
    ],
)
def test_one_error_is_not_said_to_add_to_others(cascade, says):
    block = made.activations() | {"cascade": cascade}
    steps = [
        step if step["gap"] and step["reference"] == [3, 4] else step | {"fresh": {"mean": 0.0, "ci": None}}
        for step in block["steps"]
    ]
    unharmed = [block["borders"][0] | {"relative": {"mean": 0.0, "ci": None}}, *block["borders"][1:]]
    sentence = internals(made.dense(activations=block | {"steps": steps, "borders": unharmed})).growth.sentence
    assert "times the one fresh error, of the gap (3 dropped): " in sentence
    assert sentence.endswith(f"{says}.")
    assert "cascade" not in sentence


def test_an_error_of_the_last_layer_alone_is_seen_by_no_later_layer():
    block = made.activations()
    none = {"fresh": {"mean": 0.0, "ci": None}}
    steps = [*(step | none for step in block["steps"][:-1]), block["steps"][-1]]
    unharmed = [block["borders"][0] | {"relative": {"mean": 0.0, "ci": None}}, *block["borders"][1:]]
    sentence = internals(made.dense(activations=block | {"steps": steps, "borders": unharmed})).growth.sentence
    assert sentence.endswith("of its size. It is the fresh error of layer 5, which no later layer sees.")


def test_the_lines_of_a_terminal_hold_every_block_and_say_where_the_rest_is():
    layers, growth, attention, heads, rest = inside_lines(made.dense())
    assert layers.startswith("Layers: Without a partner: layer 3 dropped (")
    assert growth.startswith("Error growth: The last hidden state is off by ")
    assert "times what fresh errors" in growth
    assert "The first token draws" in attention
    assert re.fullmatch(
        r"Heads that moved most \(JS, nats\): layer 4→3 head 2: 0\.240 .*; layer 5 head 3: .*; layer 4→3 head 3: .*\.",
        heads,
    )
    assert "--output" in rest
    assert "--json" in rest
    assert any(line.startswith("Routing: ") for line in inside_lines(made.mixture()))
    assert inside_lines(Internals()) == ()
    refused = inside_lines(Internals(not_measured=("attention: why",)))
    assert refused[0] == "Not measured: attention: why."


def test_gaps_that_were_not_resampled_are_not_called_found_again():
    block = made.alignment()
    assert internals(made.dense(alignment=block)).alignment.gaps.rows[0][0].note.startswith("found again in 99")
    block |= {"resamplings": 0, "gaps": [gap | {"stability": None} for gap in block["gaps"]]}
    few = internals(made.dense(alignment=block)).alignment.gaps.rows[0][0]
    assert few.note == "not resampled: too few documents"


def test_steps_are_named_after_their_layers_and_gaps_after_what_happened():
    view = internals(made.dense()).growth
    assert [row[0].text for row in view.steps.rows] == ["0", "1", "2", "3 dropped", "4→3", "4 inserted", "5"]
    assert view.steps.rows[0][2].text == "–"  # no error enters the first layer
    assert view.repair_sentence.startswith(
        "Of 6 layers whose change has an effect and that others follow, later layers repair that of 2 and make that of "
        "4 worse (each by its own 95 % interval, "
    )
    assert str(view.growth).count("error of the states, layer border") == 8


def test_routing_tells_the_worst_layer_and_each_experts_load():
    view = internals(made.mixture()).routing
    assert "most in layer 3: 14.0 [11.2, 16.8]\u00a0%" in view.sentence
    cells = titles(view.loads)
    assert "layer 0, expert 0: 4.00 points" in cells
    assert "layer 0, expert 5: 0 points" in cells
    assert view.margins.rows[0][4].text == "0: 16.5 %"


def test_what_was_not_measured_is_told_and_escaped():
    drawn = page(made.mixture())
    assert text(drawn.one(id_="not-inside").one("li")) == "layers are <not> run one at a time"
    assert drawn.one(id_="routing")


def test_sink_entropy_and_range_of_a_head_have_the_intervals_of_the_report():
    block = made.dense().attention
    told = {"reference_ci": (0.5, 0.75), "candidate_ci": (0.25, 0.5)}
    head = block.layers[0].heads[0]
    both = head.sink.model_copy(update={"reference": 0.625, "candidate": 0.375} | told)
    moved = head.model_copy(update={"js": Mean(mean=9.0, ci=None), "sink": both, "entropy": both, "range": both})
    layer = block.layers[0].model_copy(update={"heads": (moved,)})
    row = attention_maps(block.model_copy(update={"layers": (layer,)})).worst.rows[0]
    told = ("0.62 → 0.38", "[0.50, 0.75] → [0.25, 0.50]")
    assert [(cell.text, cell.note) for cell in row[4:]] == [told] * 3


def test_the_share_of_error_in_outlier_channels_has_its_interval_where_the_report_has_one():
    block = made.dense().activations
    border = block.borders[1].model_copy(update={"outlier_share": 0.25, "outlier_share_ci": (0.125, 0.375)})
    old = border.model_copy(update={"outlier_share_ci": None})
    rows = activation_growth(block.model_copy(update={"borders": (old, border, *block.borders[2:])})).borders.rows
    assert [(row[4].text, row[4].note) for row in rows[:2]] == [("25.0", "no interval"), ("25", "[12, 38]")]


def without_intervals(value):
    """A block's numbers alone."""
    if isinstance(value, dict):
        return {key: None if key == "ci" else without_intervals(one) for key, one in value.items()}
    return [without_intervals(one) for one in value] if isinstance(value, list | tuple) else value


def test_curves_say_that_they_have_intervals_where_they_have_some():
    captions = (
        "Relative error of the hidden states, with 95 % intervals",
        "Divergence of attention by layer, with 95 % intervals",
        "Attention on the first token (sink), with 95 % intervals",
    )
    told = text(page(made.dense()))
    bare = made.dense(activations=without_intervals(made.activations()), attention=without_intervals(made.attention()))
    less = text(page(bare))
    for caption in captions:
        assert caption in told
        assert caption not in less
        assert caption.replace("with 95", "without 95") in less
