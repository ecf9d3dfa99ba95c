"""What holds for the page of every report: it is safe to open, and nothing in it is without a name."""

import base64
import hashlib
import re
from typing import Any

import pytest

from app.reports.render import render
from tests.support.html import tree
from tests.support.reports import HOSTILE, variants

VARIANTS = variants()
PAGES = {name: render(report) for name, report in VARIANTS.items()}


def test_no_page_asks_the_network_for_anything() -> None:
    for html in PAGES.values():
        for element in tree(html).all():
            assert element.tag not in {"script", "iframe", "object", "embed", "img", "form", "base", "video", "audio"}
            for attribute, value in element.attributes.items():
                assert not attribute.startswith("on")
                assert attribute not in {"src", "srcset", "style", "action", "background"}
                if attribute == "href":
                    assert value.startswith("#") or value == "data:,"
        style = tree(html).one("style").text
        assert "url(" not in style
        assert "@import" not in style


def test_the_policy_of_a_page_allows_its_style_and_nothing_else() -> None:
    for html in PAGES.values():
        page = tree(html)
        policies = [meta.attributes for meta in page.all("meta")]
        policy = next(one["content"] for one in policies if one.get("http-equiv") == "Content-Security-Policy")
        digest = base64.b64encode(hashlib.sha256(page.one("style").text.encode()).digest()).decode()
        directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["style-src"] == f"'sha256-{digest}'"
        assert "script-src" not in directives


def test_charts_have_titles_tables_have_captions_and_links_lead_somewhere() -> None:
    for html in PAGES.values():
        page = tree(html)
        charts = list(page.all("svg"))
        assert charts
        for chart in charts:
            assert chart.attributes["role"] == "img"
            assert chart.children[0].tag == "title"
            assert chart.children[0].text.strip()
        for table in page.all("table"):
            assert table.one("caption").text.strip()
            assert all(cell.attributes.get("scope") in {"row", "col"} for cell in table.all("th"))
            assert list(table.one("tbody").all("tr"))
        targets = {element.attributes["id"] for element in page.all() if "id" in element.attributes}
        assert {link.attributes["href"].removeprefix("#") for link in page.all("a")} <= targets


def test_a_page_depends_on_its_report_alone() -> None:
    assert render(VARIANTS["severe"]) == PAGES["severe"]


def test_what_has_no_finite_value_has_no_chart_of_the_excess() -> None:
    assert not list(tree(PAGES["nothing-finite"]).one(id_="verdict").all("svg"))


def test_a_stronger_colour_is_a_larger_kl_and_the_worst_token_shows_its_own() -> None:
    report = VARIANTS["severe"]
    passages = list(tree(PAGES["severe"]).all(class_="passage"))
    assert len(passages) == len(report["passages"])
    for drawn, passage in zip(passages, report["passages"], strict=True):
        tokens = list(drawn.one(class_="text").all(class_="tok"))
        assert [token.text for token in tokens] == [token["text"] for token in passage["tokens"]]
        kls = [token["kl"] if token["kl"] is not None else -1.0 for token in passage["tokens"]]
        steps = [int(_step(token.attributes["class"])) for token in tokens]
        assert [steps[index] for index in sorted(range(len(kls)), key=kls.__getitem__)] == sorted(steps)
        worst = max(range(len(kls)), key=kls.__getitem__)
        assert "worst" in tokens[worst].attributes["class"].split()
        assert float(drawn.one("sup").text) == pytest.approx(kls[worst], rel=0.05)


def _step(classes: Any) -> str:
    found = re.search(r"\bk(\d)\b", classes)
    assert found
    return found[1]


def test_hostile_text_is_shown_and_never_obeyed() -> None:
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


def test_a_token_of_many_characters_is_cut_in_tables() -> None:
    section = tree(PAGES["hostile"]).one(id_="tokens").one(class_="worst-tokens").text
    assert "… (300 characters)" in section
    assert "a" * 100 not in section
