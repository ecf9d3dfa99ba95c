import base64
import hashlib
import json
import re

import pytest

from app.kinds.compare.report import CompareReport
from app.web.report import render
from app.web.sections.verdict import to_decide
from tests.support.html import tree
from tests.support.reports import HOSTILE, compare_report, draw, variants

VARIANTS = variants()
PAGES = {name: render(report) for name, report in VARIANTS.items()}
every_page = pytest.mark.parametrize("name", VARIANTS)


@every_page
def test_the_page_is_well_formed_and_says_the_verdict(name):
    page, report = tree(PAGES[name]), VARIANTS[name]
    verdict = page.one(id_="verdict")
    assert report["verdict"] in verdict.text
    classes = report["decision"]["classes"]
    for mentioned in (classes[0], classes[-1]):
        assert mentioned in verdict.one(class_="class").text.lower()
    sure = "conclusive" if report["decision"]["conclusive"] else "inconclusive"
    assert verdict.one(class_="rank").text.endswith(f", {sure}")


@every_page
def test_nothing_of_the_page_asks_the_network_for_anything(name):
    html = PAGES[name]
    page = tree(html)
    for element in page.all():
        assert element.tag not in {"script", "iframe", "object", "embed", "img", "form", "base", "video", "audio"}
        for attribute, value in element.attributes.items():
            assert not attribute.startswith("on")
            assert attribute not in {"src", "srcset", "style", "action", "background"}
            if attribute == "href":
                assert value.startswith("#") or value == "data:,"
    style = page.one("style").text
    assert "url(" not in style
    assert "@import" not in style


@every_page
def test_its_own_policy_allows_its_style_and_nothing_else(name):
    page = tree(PAGES[name])
    policy = next(
        meta.attributes["content"]
        for meta in page.all("meta")
        if meta.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.one("style").text.encode()).digest()).decode()
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == f"'sha256-{digest}'"
    assert "script-src" not in directives


@every_page
def test_every_chart_has_a_title_and_every_table_a_caption(name):
    page = tree(PAGES[name])
    charts = list(page.all("svg"))
    assert charts
    for chart in charts:
        assert chart.attributes["role"] == "img"
        assert chart.children[0].tag == "title"
        assert chart.children[0].text.strip()
    for table in page.all("table"):
        assert table.one("caption").text.strip()
        assert all(cell.attributes.get("scope") in {"row", "col"} for cell in table.all("th"))
    targets = {element.attributes["id"] for element in page.all() if "id" in element.attributes}
    assert {link.attributes["href"].removeprefix("#") for link in page.all("a")} <= targets


def test_the_page_depends_on_the_report_alone():
    assert render(VARIANTS["severe"]) == PAGES["severe"]


def test_key_numbers_stand_with_their_intervals():
    page = tree(render(VARIANTS["severe"]))
    numbers = page.one(id_="numbers").text
    kl = VARIANTS["severe"]["divergence"]["kl"]
    low, high = kl["ci"]
    assert f"{kl['mean']:.3f}" in numbers
    assert f"[{low:.3f}, {high:.3f}]" in numbers
    for name in (
        "KL(p‖q)",
        "KL(q‖p)",
        "JS",
        "TV",
        "Perplexity ratio",
        "Top-1",
        "Top-5",
        "Top-10",
        "Expected rank",
        "Entropy of q",
    ):
        assert name in numbers
    assert "49,152 tokens" in numbers


def test_domains_stand_the_most_damaged_first():
    report = VARIANTS["domains"]
    section = tree(PAGES["domains"]).one(id_="where")
    table = section.one("table")
    names = [row.one("th").text.strip() for row in table.one("tbody").all("tr")]
    assert names == sorted(report["domains"], key=lambda name: -report["domains"][name]["divergence"]["kl"]["mean"])
    assert len(names) == 12


def test_an_inconclusive_verdict_names_both_classes_and_the_tokens_that_decide():
    report = VARIANTS["inconclusive"]
    verdict = tree(PAGES["inconclusive"]).one(id_="verdict")
    assert not report["decision"]["conclusive"]
    assert verdict.one(class_="class").text == "Mild or moderate"
    assert report["decision"]["tokens_to_decide"] == 14_953
    assert "About 15,000 scored tokens would decide" in verdict.text  # two digits, upwards, as the sentence has them
    assert "straddles 0.05" in verdict.text


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (45_545_445, "only about 46,000,000 scored tokens would decide, 17,000 times this text"),
        (1_000_000, "only about 1,000,000 scored tokens would decide, 380 times this text"),
        (999_000, "About 1,000,000 scored tokens would decide, 380 times this text"),
        (250_000, "About 250,000 scored tokens would decide, 96 times this text"),
    ],
)
def test_what_nobody_will_score_is_said_to_lie_on_the_limit(tokens, told):
    report = CompareReport.model_validate(VARIANTS["inconclusive"])
    decision = report.decision.model_copy(update={"tokens_to_decide": tokens})
    text = to_decide(report.model_copy(update={"decision": decision, "tokens": 2614}))
    assert told in text
    assert text.startswith("It lies so close to a limit") == told.startswith("only")


def test_values_that_are_not_finite_are_said_at_the_top():
    verdict = tree(PAGES["collapse"]).one(id_="verdict")
    assert "37 positions gave NaN or infinite values" in verdict.one(class_="bad").text
    assert not list(tree(PAGES["severe"]).all(class_="bad"))


def test_warnings_stand_with_the_verdict():
    verdict = tree(PAGES["mild"]).one(id_="verdict")
    assert "Few documents in the domain mathematics." in verdict.one(class_="alert").text


def test_passages_are_coloured_by_kl_and_the_worst_token_shows_its_own():
    report = VARIANTS["severe"]
    passages = list(tree(PAGES["severe"]).all(class_="passage"))
    assert len(passages) == len(report["passages"])
    for drawn, passage in zip(passages, report["passages"], strict=True):
        tokens = list(drawn.one(class_="text").all(class_="tok"))
        assert [token.text for token in tokens] == [token["text"] for token in passage["tokens"]]
        kls = [token["kl"] if token["kl"] is not None else -1.0 for token in passage["tokens"]]
        steps = [int(re.search(r"\bk(\d)\b", token.attributes["class"])[1]) for token in tokens]
        order = sorted(range(len(kls)), key=kls.__getitem__)
        assert [steps[index] for index in order] == sorted(steps)
        worst = max(range(len(kls)), key=kls.__getitem__)
        assert "worst" in tokens[worst].attributes["class"].split()
        assert float(drawn.one("sup").text) == pytest.approx(kls[worst], rel=0.05)
        assert tokens[worst].attributes["title"].startswith("KL ")


def test_without_text_the_places_are_listed_and_the_reason_is_given():
    report = VARIANTS["no-text"]
    section = tree(PAGES["no-text"]).one(id_="tokens")
    assert not list(section.all(class_="passage"))
    assert "stored only where the job asks for it" in section.text
    shown, folded = (list(body.all("tr")) for body in section.all("tbody"))
    assert len(shown) == 15
    assert list(section.one("details").all("tr"))[1:] == folded
    rows = shown + folded
    assert len(rows) == len(report["worst_tokens"])
    for row, token in zip(rows, report["worst_tokens"], strict=True):
        assert token["document"] in row.text
        assert str(token["token_id"]) in row.text
        assert f"{token['position']:,}" in row.text


def test_a_job_that_refused_text_is_told_so():
    report = compare_report(draw(documents=3), store_text=False)
    report["request"]["store_text"] = False
    assert "the job asked that no text be stored" in tree(render(report)).one(id_="tokens").text


def test_the_kernel_term_stands_apart_where_there_is_one():
    assert "w8a8" in tree(PAGES["kernel"]).one(id_="kernel").text
    assert not list(tree(PAGES["severe"]).all(id_="kernel"))


def test_limits_say_the_rule_the_thresholds_and_what_was_not_tested():
    report = VARIANTS["severe"]
    limits = tree(PAGES["severe"]).one(id_="limits").text
    assert report["decision"]["rule"] in limits
    for item in report["not_tested"]:
        assert item in limits
    for threshold in ("0.01", "0.05", "0.2"):
        assert threshold in limits


def test_provenance_is_whole():
    report = VARIANTS["severe"]
    origin = report["provenance"]
    text = tree(PAGES["severe"]).one(id_="provenance").text
    expected = [
        origin["reference"]["weights_fingerprint"],
        origin["candidate"]["weights_fingerprint"],
        origin["engine"],
        origin["execution"],
        origin["device"],
        origin["dtype"],
        origin["head"],
        origin["intervals"],
        origin["protocol"]["text_fingerprint"],
        origin["protocol"]["tokenizer_fingerprint"],
        origin["candidate"]["recipe_fingerprint"],
        *origin["versions"].values(),
        *origin["seconds"],
        json.dumps(origin["candidate"]["recipe"][0]),
    ]
    for value in expected:
        assert value in text


def test_a_report_with_a_store_hit_and_resumed_windows_says_so():
    report = compare_report(draw(documents=3))
    report["provenance"] |= {"reference_from_store": True, "resumed_windows": 17}
    text = tree(render(report)).one(id_="provenance").text
    assert "from the store, not run again" in text
    assert "17 scored by an attempt before" in text


def test_hostile_text_is_shown_and_never_obeyed():
    html = PAGES["hostile"]
    page = tree(html)
    assert not list(page.all("b", class_="x"))
    assert "<b>not bold</b>" in page.one(id_="verdict").text
    tokens = "".join(element.text for element in page.one(class_="passage").all(class_="tok"))
    for shown in (
        "<script>alert(1)</script>",
        "{{ 7*7 }}",
        "{% raw %}",
        "&amp;",
        '" onmouseover="x',
        "⟨U+202E⟩gnp.exe",
        "⟨U+001B⟩[31mred⟨U+0007⟩",
        "مرحبا",
        "你好",
    ):
        assert shown in tokens
    assert "49" not in tokens
    for character in "\u202e\x1b\x00\x07\u2028":
        assert character not in html
    assert len(HOSTILE) > 20


def test_a_token_of_many_characters_is_cut_in_tables():
    section = tree(PAGES["hostile"]).one(id_="tokens").one(class_="worst-tokens").text
    assert "… (300 characters)" in section
    assert "a" * 100 not in section


def test_a_report_of_no_finite_value_has_no_chart_of_the_excess_and_no_empty_table():
    page = tree(PAGES["nothing-finite"])
    assert not list(page.one(id_="verdict").all("svg"))
    for table in page.all("table"):
        assert list(table.one("tbody").all("tr")) or table.one("caption").text == "Positions by KL"
