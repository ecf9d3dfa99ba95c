"""Tasks made of published texts: which items, in whose fields, and which ending is right."""

import bz2
import json
from pathlib import Path

import pytest

from app.commands.tasks import parse_task
from app.contracts.task import FileTask
from app.models.tasks.reading import read_source
from app.settings import Settings
from tests.bench.flips_tasks import next_sentence, pairs, write_files

# Three articles as WikiText has them: headings with blanks around, blanks before full stops.
WIKI = "".join(
    f" \n = {name} = \n \n {name} was first seen in the year {year} near the coast . "
    f"Nobody who saw {name} wrote down where it went after that . It is gone . \n"
    f" \n = = Later = = \n \n Short . Too . \n A later paragraph of {name} begins with this sentence . "
    f"And here it goes on with another one of {name} . \n"
    for year, name in enumerate(("Alpha Island", "Beta Island", "Gamma Island", "Delta Island"), 1900)
)
ENDINGS = "\n".join(
    f"{label}: {context}\n0\n{label.lower()} one.\n{label.lower()} two.\nthree.\nfour."
    for label, context in (
        ("Cooking", "A woman stands in a kitchen. she"),
        ("Health", "How to sleep well. Go to bed early."),
        ("Skating", "A boy falls on the ice. he"),
    )
)


def test_a_pair_is_two_sentences_of_a_paragraph_under_its_articles_title() -> None:
    found = list(pairs(WIKI))
    assert found[:2] == [
        (
            "Alpha Island",
            "Alpha Island was first seen in the year 1900 near the coast .",
            "Nobody who saw Alpha Island wrote down where it went after that .",
        ),
        (
            "Alpha Island",
            "A later paragraph of Alpha Island begins with this sentence .",
            "And here it goes on with another one of Alpha Island .",
        ),
    ]
    assert len(found) == 8


def test_the_right_ending_is_the_next_sentence_and_the_wrong_ones_are_of_other_articles() -> None:
    items = list(next_sentence(WIKI))
    following = {first: second for _, first, second in pairs(WIKI)}
    for item in items:
        assert item["endings"][item["label"]] == following[item["ctx_a"]]
        assert [item["activity_label"] in ending for ending in item["endings"]].count(True) == 1
    assert len({item["label"] for item in items}) > 1
    assert items == list(next_sentence(WIKI)), "the same each time"


def test_an_article_alone_has_no_wrong_endings() -> None:
    with pytest.raises(ValueError, match="of 1 articles are too few"):
        list(next_sentence(WIKI.split("\n = Beta Island")[0]))


def test_a_job_reads_the_files_and_hellaswag_is_two_tasks_by_its_sources(tmp_path: Path) -> None:
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "hellaswag_val_full.txt.bz2").write_bytes(bz2.compress(ENDINGS.encode()))
    (tmp_path / "wikitext-2-raw").mkdir()
    (tmp_path / "wikitext-2-raw" / "wiki.test.raw").write_text(WIKI, encoding="utf-8")
    root = tmp_path / "texts"
    told = write_files(tmp_path, root, {"hellaswag-activitynet": 2, "hellaswag-wikihow": 2, "next-sentence": 4})
    assert told[0] == "shipped"
    asked = [FileTask.model_validate(parse_task(one)) for one in told[1:]]
    assert [(task.title, task.items) for task in asked] == [
        ("hellaswag-activitynet", 2),
        ("hellaswag-wikihow", 2),
        ("next-sentence", 4),
    ]
    counts = [len((root / task.path).read_text(encoding="utf-8").splitlines()) for task in asked]
    assert counts == [2, 1, 8]
    films = [json.loads(line) for line in (root / "hellaswag-activitynet.jsonl").read_text("utf-8").splitlines()]
    assert [film["activity_label"] for film in films] == ["Cooking", "Skating"]
    items = read_source(asked[2], Settings(home=tmp_path, text_root=root), pointer="/tasks/3")
    assert len(items) == 8
