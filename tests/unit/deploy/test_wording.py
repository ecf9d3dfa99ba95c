"""One test of all code, and tests that each check finds what it is for."""

import tomllib

import pytest

from deploy import wording
from deploy.wording import Fault

RULES = tomllib.loads(wording.KEPT.read_text(encoding="utf-8"))
LONG = "A sentence " + "of far too many words " * 7 + "ends here."


def test_no_room_has_more_faults_than_it_may_have() -> None:
    assert wording.over(wording.faults(RULES.get("allowed", [])), RULES["most"]) == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        ("names", "class Shop:\n    pass\n"),
        ("phrases", '"""The report tells how much it loses."""\n'),
        ("phrases", 'raise ValueError(f"{name} loses {loss} nats a token")\n'),
        ("sentences", f'"""{LONG}"""\n'),
        ("sentences", f'help = "{LONG[:60]}" "{LONG[60:]}"\n'),
    ],
)
def test_a_check_finds_what_is_wrong(check: str, source: str) -> None:
    assert check in {fault.check for fault in wording.faults_of("app/some.py", source)}


@pytest.mark.parametrize("source", ['"""One `tells` another."""\n', 'kind = "tells"\n', "# it tells\n"])
def test_code_keys_and_comments_are_not_read(source: str) -> None:
    assert list(wording.faults_of("app/some.py", source)) == []


def test_a_room_may_hold_its_old_faults_and_no_new_one() -> None:
    old = Fault("workers/text/one.py", 1, "phrases", "'tells'")
    assert old.room == "workers/text"
    assert wording.over([old], {"phrases": {"workers/text": 1}}) == []
    assert wording.over([old, old], {"phrases": {"workers/text": 1}})
    assert wording.over([old], {"sentences": {"workers/text": 1}})


def test_counts_fall_and_never_rise() -> None:
    text = '# Why.\n\n[most.phrases]\n"app/cli" = 1\n"workers/text" = 3\n'
    fault = Fault("workers/text/one.py", 1, "phrases", "'tells'")
    most = tomllib.loads(text)["most"]
    assert wording.lowered(text, [fault], most) == '# Why.\n\n[most.phrases]\n"workers/text" = 1\n'
    assert '"workers/text" = 3' in wording.lowered(text, [fault] * 5, most)
