"""Whether the code has moved on since a page was measured."""

import pytest

from app.cli.output import Exit
from examples.paper.__main__ import aged, main
from examples.paper.age import answer, moved_on, told
from examples.paper.claim import claims, jobs_of, request
from examples.paper.page import versions_of
from workers.surgery.application import SURGERY_VERSION

PAGE = """# A page

- **Versions**: of nothing

<a id="knee"></a>

- **Jobs**: one
- **Versions**: prune.wanda 1; surgery 4

<a id="cliff"></a>

- **Versions**: surgery 4

<a id="attention"></a>

Not measured.
"""
TODAY = {"knee": "prune.wanda 1; surgery 4", "cliff": "surgery 4", "attention": "surgery 4"}


def test_versions_are_those_of_each_claim_and_none_of_one_without_numbers():
    assert told(PAGE) == {"knee": "prune.wanda 1; surgery 4", "cliff": "surgery 4"}


def test_only_versions_that_differ_are_told_with_those_of_today():
    assert moved_on(PAGE, TODAY) == {}
    assert moved_on(PAGE, TODAY | {"knee": "prune.wanda 2; surgery 4"}) == {"knee": "prune.wanda 1, now prune.wanda 2"}
    assert moved_on(PAGE, TODAY | {"cliff": "quantize.gptq 2; surgery 4"}) == {"cliff": "none, now quantize.gptq 2"}
    assert moved_on(PAGE, {"attention": "surgery 5"}) == {}, "claims that the page does not have, or has no numbers of"


def test_claims_of_the_same_change_share_a_line():
    newer = {claim: versions.replace("surgery 4", "surgery 5") for claim, versions in TODAY.items()}
    assert answer(PAGE, newer) == (Exit.RULE_FAILS, ["surgery 4, now surgery 5: knee, cliff"])
    assert answer(PAGE, TODAY) == (Exit.OK, ["The models of the page were made by the versions of today."])
    before = answer("# A page of before", TODAY)
    assert before == (Exit.FAILED, ["The page names no versions that its models were made by."])


def test_a_written_page_is_held_against_the_code_of_today_and_the_exit_status_tells(tmp_path, capsys):
    def asked():
        with pytest.raises(SystemExit) as ended:
            main(output=tmp_path, age=True)
        assert aged(tmp_path)[0] is ended.value.code
        said = capsys.readouterr()
        assert said.err == ""
        return ended.value.code, said.out

    assert asked() == (Exit.FAILED, f"There is no page in {tmp_path}.\n")
    listed = claims()
    requests = {name: request(name) for name in jobs_of(listed)}
    made = {claim.id: versions_of(claim, requests) for claim in listed}
    today = "".join(f'<a id="{claim}"></a>\n- **Versions**: {versions}\n' for claim, versions in made.items())
    page = tmp_path / "paper.md"
    page.write_text(today)
    assert asked() == (Exit.OK, "The models of the page were made by the versions of today.\n")
    page.write_text(today.replace(f"surgery {SURGERY_VERSION}", "surgery 0"))
    assert asked() == (Exit.RULE_FAILS, f"surgery 0, now surgery {SURGERY_VERSION}: {', '.join(made)}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["paper.md"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"only": ["gptq-bits"]}, "no --only"),
        ({"again": True}, "no --again"),
        ({"write_only": True}, "no --write-only"),
        ({"again": True, "write_only": True}, "no --again and no --write-only"),
    ],
)
def test_options_that_would_do_nothing_beside_it_are_refused(tmp_path, capsys, options, named):
    with pytest.raises(SystemExit) as ended:
        main(output=tmp_path, age=True, **options)
    assert ended.value.code == Exit.REFUSED
    said = capsys.readouterr()
    assert said.out == ""
    assert f"it takes {named} (invalid_request)" in said.err
    assert list(tmp_path.iterdir()) == []
