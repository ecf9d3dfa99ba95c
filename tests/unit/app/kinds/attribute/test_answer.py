"""Which part the answer names, what it is the worst of, and on how much text: compared with a file beside the test."""

from app.kinds.attribute.answer import layers_in_words, sentence
from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.words import heading
from tests.support import internals_blocks
from tests.support.attribute_reports import attribute_report, attribute_variants, first, site

KINDS = {"unsure": {"cause": "unclear", "shown": False}, "no interval": {"cause": "size", "shown": None}}
NOTHING = {"considered": 0, "measured": 0}
OTHERS = NOTHING | {"others": 7}


def told(report):
    return f"{heading(report)}. {sentence(report)}"


def answer(*sites, search=None, request=None, looked=None, **more):
    """Heading and answer of a report on all kinds and layers, if `request` does not ask for less."""
    body = attribute_report(sites=list(sites))
    body["search"] |= search or {}
    body["request"] |= {"levels": ["layer", "module", "norm", "heads", "expert"], "layers": None} | (request or {})
    if looked is not None:
        body["explained"]["sites"] = looked
    return told(AttributeReport.model_validate(body | more))


def part(layer, nats, cause="size", **changes):
    changes = {"shown": True, "cause": cause} | KINDS.get(cause, {}) | changes
    return first(f"layers.{layer}.mlp.up_proj", nats, changes.pop("cause"), **changes)


def gaps(*sites, **alignment):
    body = attribute_variants()["other-depth"] | {"sites": list(sites)}
    if alignment:
        block = internals_blocks.dense(alignment=internals_blocks.alignment() | alignment)
        body |= {"internals": block.model_dump(mode="json")}
    return told(AttributeReport.model_validate(body))


def gap(name, nats, **changes):
    return site(name, nats, kind="gap", layer=3, **({"cause": "removed", "shown": True} | changes))


def parts():
    both, worst = (part(0, 0.18), part(1, 0.05)), part(0, 0.2)
    yield "two parts", answer(*both)
    yield "no interval of a share", answer(part(0, 0.18, share_ci=None))
    yield "the first tokens", answer(part(0, 0.2, tokens=1950, share=0.5, share_ci=None), both[1])
    yield "the first tokens without a share", answer(part(0, 0.2, tokens=1950, share=None, share_ci=None))
    for causes in ("size, negligible", "negligible, size", "unsure, size", "negligible, no interval"):
        yield causes, answer(*(part(n, 0.2 - 0.1 * n, cause) for n, cause in enumerate(causes.split(", "))))
    for causes in ("negligible, negligible", "unsure, negligible", "unsure, unsure"):
        yield causes, answer(*(part(n, 0.2 - 0.1 * n, cause) for n, cause in enumerate(causes.split(", "))))
    yield "some untried", answer(worst, search={"untried": 2}, request={"layers": [0, 1]})
    broken = [{"name": f"layers.{n}", "kind": "layer", "layer": 0, "tokens": 9} for n in range(6)]
    for count, rest in ((1, [part(7, 0.2)]), (6, [part(7, 0.2)]), (1, [])):
        yield f"{count} finite nowhere beside {len(rest)}", answer(*rest, nowhere_finite=broken[:count])
    yield "finite nowhere, others not shown", answer(part(7, 0.2), looked=[], nowhere_finite=broken[:1])
    yield "none reached", answer(search={"considered": 9, "measured": 0})
    yield "other kinds differ", answer(search=OTHERS, request={"levels": ["norm", "expert"]})
    yield "other kinds of two layers differ", answer(search=OTHERS, request={"levels": ["norm"], "layers": [1, 2]})
    yield "nothing of a layer differs", answer(search=NOTHING, request={"layers": [3]})
    yield "nothing differs", answer(search=NOTHING)


def depths():
    measured = {"windows": 1, "tokens": 210, "documents": 1}
    yield "a gap on little text", gaps(gap("dropped layer 5", 0.4, share_ci=None), measured=measured)
    yield "no gap", gaps()
    for mean, ci in ((0.61, None), (0.61, (0.0, 1.2)), (0.0, (0.0, 0.0))):
        yield f"what both have costs {mean}, {ci}", gaps(gap("dropped layer 5", 0.4), matched={"mean": mean, "ci": ci})
    unsure = gap("dropped layer 2", 0.6, shown=False, cause="unclear")
    shown = gap("dropped layer 8", 0.2)
    mild = gap("added layer 4", 0.0, cause="negligible", shown=None, share=None, share_ci=None)
    yield "an unsure gap before a shown one", gaps(unsure, shown)
    yield "a shown gap before others", gaps(shown, unsure, mild)
    yield "a mild gap", gaps(mild)
    yield "an unsure gap and a mild one", gaps(unsure, mild)


def test_answers_say_what_they_said(snapshot):
    snapshot("answers.txt", "\n\n".join(f"{name}:\n{said}" for name, said in (*parts(), *depths())))


def test_runs_of_layers_are_named_by_their_ends():
    named = {(3,): "layer 3", (1, 2): "layers 1, 2", (0, 1, 2, 5): "layers 0–2, 5"}
    assert {numbers: layers_in_words(numbers) for numbers in named} == named
