"""Task files of every format are read; what they lack is told with its line."""

import json

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import FileTask, ShippedTask
from app.models.tasks.items import fingerprint
from app.models.tasks.reading import SHIPPED, read_source, read_task
from app.settings import Settings

HELLASWAG = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "endings": ["is using wrap.", "starts [substeps] pulling up roofing  on a roof."],
    "label": "1",
    "source_id": "x",
}
ARC = {
    "id": "M_1",
    "question": "Which is hot?",
    "choices": {"text": ["Fire", "Ice", "Snow"], "label": ["A", "B", "C"]},
    "answerKey": "A",
}
ARC_NESTED = {
    "id": "M_2",
    "question": {"stem": "Which is cold?", "choices": [{"text": "Fire", "label": "1"}, {"text": "Ice", "label": "2"}]},
    "answerKey": "2",
}
MMLU = {"question": " 1 + 1? ", "subject": "abstract_algebra", "choices": ["1", "2", "3", "4"], "answer": 1}
GSM8K = {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def twice(x):\n",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(f):\n    assert f(2) == 4\n",
    "entry_point": "twice",
}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "texts").mkdir()
    return Settings(home=tmp_path, text_root=tmp_path / "texts")


def write(settings, name, content):
    assert settings.text_root
    text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
    (settings.text_root / name).write_text(text, encoding="utf-8")
    return name


def read(settings, form, content, name="t.jsonl", **fields):
    path = write(settings, name, content)
    task = FileTask.model_validate({"source": "file", "format": form, "path": path} | fields)
    return read_task(task, settings, seed=0, pointer="/tasks/0")


def test_hellaswag_is_prompted_as_the_harness_does(settings):
    (item, _) = read(settings, "hellaswag", [HELLASWAG, HELLASWAG])
    assert item.context == "Roof shingle removal: A man is sitting on a roof. He"
    assert item.choices == ("is using wrap.", "starts pulling up roofing on a roof.")
    assert (item.gold, item.id, item.delimiter) == (1, "24", " ")


def test_arc_is_read_in_both_of_its_forms(settings):
    one, other = read(settings, "arc", [ARC, ARC_NESTED])
    assert (one.context, one.choices, one.gold) == ("Question: Which is hot?\nAnswer:", ("Fire", "Ice", "Snow"), 0)
    assert (other.context, other.choices, other.gold) == ("Question: Which is cold?\nAnswer:", ("Fire", "Ice"), 1)


def test_mmlu_asks_for_a_letter(settings):
    (item, _) = read(settings, "mmlu", [MMLU, MMLU | {"answer": "C"}])
    about = "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
    assert item.context == f"{about}1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    assert (item.choices, item.gold) == (("A", "B", "C", "D"), 1)


def test_mmlu_is_read_from_its_own_csv_and_from_one_with_a_header(settings):
    own = read(settings, "mmlu", '"1 + 1, or so?",1,2,3,4,B\nTwo?,5,6,2,7,C\n', "own.csv")
    assert [(item.gold, item.prompt.split("\n")[0]) for item in own] == [(1, "1 + 1, or so?"), (2, "Two?")]
    headed = read(
        settings, "mmlu", "question,A,B,C,D,answer,subject\nTwo?,5,6,2,7,C,sums\nOne?,1,2,3,4,A,sums\n", "h.csv"
    )
    assert headed[0].choices == ("A", "B", "C", "D")
    assert headed[0].prefix.endswith("about sums.\n\n")


def test_an_empty_cell_of_mmlu_moves_no_answer(settings):
    for content in (
        # With the gap closed, C would be the third of x, y, z: another answer than the file's.
        "question,A,B,C,D,answer\nQ?,x,,y,z,C\nQ?,x,y,z,v,A\n",
        "question,A,B,D,answer\nQ?,x,y,z,C\nQ?,x,y,z,A\n",
        "Q?,1,2,3,4,A\nQ?,,2,3,4,A\n",
        "question,A,B,C,D,answer\nQ?,x,y,,,C\nQ?,x,y,z,v,A\n",
        "question,A,B,C,D,answer\nQ?,x,y,,,3\nQ?,x,y,z,v,A\n",
    ):
        with pytest.raises(HemostatError, match="line 2") as caught:
            read(settings, "mmlu", content, "m.csv")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.TASK_INVALID, "/tasks/0/path")


def test_lists_in_csv_are_json(settings):
    rows = 'activity_label,ctx_a,ctx_b,endings,label\nCooking,A,b,"[""x"", ""y""]",0\nCooking,C,d,"[""v"", ""w""]",1\n'
    items = read(settings, "hellaswag", rows, "h.csv")
    assert [(item.choices, item.gold) for item in items] == [(("x", "y"), 0), (("v", "w"), 1)]


def test_items_know_their_passage_and_a_row_without_one_is_refused(settings):
    rows = [GSM8K | {"story": story} for story in ("a", "a", 7)]
    assert [item.passage for item in read(settings, "gsm8k", rows, passage="story")] == ["a", "a", "7"]
    assert {item.passage for item in read(settings, "gsm8k", rows)} == {None}
    with pytest.raises(HemostatError, match="line 2: the field that passage names is missing"):
        read(settings, "gsm8k", [rows[0], GSM8K], passage="story")


def test_gsm8k_and_humaneval(settings):
    (sum_, _) = read(settings, "gsm8k", [GSM8K, GSM8K])
    assert (sum_.context, sum_.target) == ("Question: Two and two?\nAnswer:", GSM8K["answer"])
    (code, _) = read(settings, "humaneval", [HUMANEVAL, HUMANEVAL])
    assert (code.context, code.entry_point, code.delimiter) == ("def twice(x):\n", "twice", "")


def test_solved_examples_stand_before_each_item(settings):
    write(settings, "train.jsonl", [GSM8K | {"question": "One?", "answer": "#### 1"}, GSM8K])
    items = read(settings, "gsm8k", [GSM8K, GSM8K | {"question": "Three?"}], shots=1, examples="train.jsonl")
    assert items[1].context == "Question: One?\nAnswer: #### 1\n\nQuestion: Three?\nAnswer:"
    assert items[1].prompt == "Question: Three?\nAnswer:"


def test_a_draw_is_the_same_for_the_same_seed(settings):
    rows = [GSM8K | {"question": f"{number}?"} for number in range(50)]
    one, same = (read(settings, "gsm8k", rows, items=10) for _ in range(2))
    assert [item.id for item in one] == [item.id for item in same]
    assert [int(item.id) for item in one] == sorted(int(item.id) for item in one)
    path = FileTask(source="file", format="gsm8k", path="t.jsonl", items=10)
    other = read_task(path, settings, seed=1, pointer="")
    assert [item.id for item in one] != [item.id for item in other]


def test_what_a_file_lacks_is_told(settings):
    wrong = []
    for form, content, words in LACKS:
        with pytest.raises(HemostatError) as caught:
            read(settings, form, content)
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.TASK_INVALID, "/tasks/0/path")
        assert caught.value.hint
        wrong += [(form, word, caught.value.detail) for word in words if word not in caught.value.detail]
    assert wrong == []


def test_a_file_of_another_format_is_told_as_one(settings):
    for name, content in (
        ("t.jsonl", [ARC, ARC]),
        ("t.txt", "x"),
        ("t.csv", "question,answer\na,b,c\n"),
        ("t.csv", 'question,answer\n"a,#### 1\n'),
    ):
        with pytest.raises(HemostatError) as caught:
            read(settings, "gsm8k", content, name)
        assert caught.value.code is ErrorCode.TASK_INVALID


def test_no_content_of_a_file_is_in_the_message(settings):
    for form, content in (
        ("gsm8k", [GSM8K | {"question": "a secret plan", "answer": "burn after reading"}]),
        ("arc", [ARC | {"answerKey": "secret"}]),
        ("arc", [ARC | {"choices": {"text": ["burn", "x"], "label": ["secret", "y"]}}]),
        ("mmlu", [MMLU | {"answer": "secret"}]),
        ("hellaswag", [HELLASWAG | {"label": "secret"}]),
        ("humaneval", [HUMANEVAL | {"entry_point": "secret plan"}]),
        ("gsm8k", "A secret plan.,burn after reading\nx,y\n"),
    ):
        with pytest.raises(HemostatError) as caught:
            read(settings, form, content, "t.csv" if isinstance(content, str) else "t.jsonl")
        told = f"{caught.value} {caught.value.hint}"
        assert "secret" not in told
        assert "burn" not in told


def test_other_refusals(settings, tmp_path):
    path = write(settings, "t.jsonl", [GSM8K, GSM8K | {"question": "Three?"}])
    write(settings, "train.jsonl", [GSM8K, GSM8K | {"question": "Four?"}])

    def refused(source=settings, **fields):
        task = FileTask.model_validate({"source": "file", "format": "gsm8k", "path": path} | fields)
        with pytest.raises(HemostatError) as caught:
            read_task(task, source, seed=0, pointer="/tasks/1")
        return caught.value.code, caught.value.pointer

    assert refused(items=3) == (ErrorCode.TASK_INVALID, "/tasks/1/items")
    assert refused(path="../t.jsonl") == (ErrorCode.PATH_FORBIDDEN, "/tasks/1/path")
    assert refused(path="absent.jsonl") == (ErrorCode.TEXT_NOT_FOUND, "/tasks/1/path")
    assert refused(Settings(home=tmp_path)) == (ErrorCode.PATH_FORBIDDEN, "/tasks/1/path")
    assert refused(shots=9, examples="train.jsonl") == (ErrorCode.TASK_INVALID, "/tasks/1/shots")
    # the first example is an item
    assert refused(shots=1, examples="train.jsonl") == (ErrorCode.TASK_INVALID, "/tasks/1/examples")


def test_the_fingerprint_follows_what_is_asked(settings):
    one = read(settings, "gsm8k", [GSM8K, GSM8K])
    other = read(settings, "gsm8k", [GSM8K, GSM8K | {"answer": "#### 5"}])
    assert fingerprint(one, metric="a") == fingerprint(list(one), metric="a")
    assert len({fingerprint(one, metric="a"), fingerprint(other, metric="a"), fingerprint(one, metric="b")}) == 3


def test_the_shipped_items_are_sound(settings):
    items = read_task(ShippedTask(source="shipped"), settings, seed=0, pointer="")
    assert len(items) >= 60
    assert len({item.id for item in items}) == len({item.prompt for item in items}) == len(items)
    assert all(len(item.choices) == 4 for item in items)
    # No place wins by itself.
    counts = [sum(item.gold == place for item in items) for place in range(4)]
    assert max(counts) <= 0.34 * len(items)
    assert SHIPPED.is_file()
    assert len(read_task(ShippedTask(source="shipped", items=30), settings, seed=0, pointer="")) == 30


def test_the_source_of_a_draw_is_the_whole_task(settings):
    rows = [ARC | {"question": f"Which is hot, {number}?"} for number in range(9)]
    plain = {"source": "file", "format": "arc", "path": write(settings, "all.jsonl", rows)}
    shown = {"shots": 1, "examples": write(settings, "solved.jsonl", [ARC, ARC_NESTED])}
    for task in (plain, plain | shown):
        whole = read_task(FileTask.model_validate(task), settings, seed=0, pointer="/tasks/0")
        for items in (2, 5, None):
            drawn = FileTask.model_validate(task | {"items": items})
            assert read_source(drawn, settings, pointer="/tasks/0") == whole
    shipped = read_task(ShippedTask(source="shipped"), settings, seed=0, pointer="/tasks/0")
    assert read_source(ShippedTask(source="shipped", items=12), settings, pointer="/tasks/0") == shipped


# The format, the rows, and what is named of the fault.
LACKS = [
    ("hellaswag", [ARC, ARC], ["line 1", "activity_label, ctx_a, ctx_b, endings"]),
    ("arc", [ARC, {"question": "Q"}], ["line 2", "choices"]),
    ("mmlu", [MMLU, {**MMLU, "answer": ""}], ["line 2", "(answer)"]),
    ("arc", [{key: ARC[key] for key in ("question", "choices")}], ["(answerKey)"]),
    ("hellaswag", [HELLASWAG | {"label": ""}], ["(label)"]),
    ("gsm8k", [{"question": "Q?"}], ["(answer)"]),
    ("gsm8k", [GSM8K, GSM8K | {"question": "  "}], ["line 2", "question is empty"]),
    ("humaneval", [HUMANEVAL | {"prompt": ""}], ["prompt is empty"]),
    ("humaneval", [HUMANEVAL | {"entry_point": "x(); import os"}], ["no name of a function"]),
    ("gsm8k", [GSM8K | {"answer": "#### many"}], ["no number"]),
    ("hellaswag", [HELLASWAG | {"label": "2"}], ["none of the 2"]),
    ("hellaswag", [HELLASWAG | {"label": "²"}], ["none of the 2"]),  # a digit, and no number
    ("hellaswag", [HELLASWAG | {"label": "1" * 5000}], ["none of the 2"]),
    ("arc", [ARC | {"answerKey": "E"}], ["none of the 3"]),
    ("mmlu", [MMLU | {"answer": 4}], ["none of the 4"]),
    ("mmlu", [MMLU | {"choices": ["1"]}], ["choices"]),
    ("mmlu", [MMLU | {"choices": ["1", " "]}], ["choices"]),
    ("hellaswag", [HELLASWAG, HELLASWAG | {"endings": ["a", "[step]"]}], ["line 2", "endings"]),
    ("hellaswag", [HELLASWAG | {"endings": [" [title] [x]", "b"]}], ["line 1", "endings"]),
    ("gsm8k", "not json\n", ["line 1"]),
    ("gsm8k", "[1]\n", ["line 1"]),
    ("gsm8k", [GSM8K], ["1 item"]),
    ("gsm8k", "", ["0 items"]),
    ("gsm8k", [ARC, ARC], ["the answer is missing (answer)"]),
    ("humaneval", [GSM8K, GSM8K], ["humaneval needs prompt, test, entry_point; there are answer, question"]),
    ("gsm8k", [{"some text": 1, "n": 2}, {}], ["gsm8k needs question; there are n"]),
]
