import pytest

from app.jobs.negotiation import preferred

OFFERED = ("application/json", "text/html")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("text/html", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("application/json;q=0.5, text/html;q=0.4", "application/json"),
        ("application/json;q=0.4, text/html;q=0.5", "text/html"),
        ("*/*, application/json;q=0", "text/html"),
        ("text/*;q=0.9, text/html;q=0.1, */*;q=0.5", "application/json"),
        ("application/json;q=0", None),
        ("garbage, application/json", "application/json"),
        ("text/html;q=x, */*;q=0.1", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
    ],
)
def test_the_best_acceptable_type_is_chosen(accept, chosen):
    assert preferred(accept, OFFERED) == chosen
