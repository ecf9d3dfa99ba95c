"""Recipes and texts as they are written on a command line."""

import json
import os
import threading

import pytest

from app.commands.recipes import parse_recipe, parse_text, step_word
from app.contracts.errors import ErrorCode, HemostatError


def test_a_shorthand_step_becomes_its_json():
    assert parse_recipe(["quantize.rtn:bits=4,group_size=64,symmetric=false"]) == [
        {"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}
    ]


def test_null_lists_and_words_are_understood():
    parsed = parse_recipe(
        ["prune.magnitude:pattern=2:4,layers=0+3,modules=q_proj", "quantize.rtn:bits=3,group_size=null"]
    )
    assert parsed == [
        {"type": "prune.magnitude", "pattern": "2:4", "layers": [0, 3], "modules": ["q_proj"]},
        {"type": "quantize.rtn", "bits": 3, "group_size": None},
    ]


def test_json_and_files_are_taken_as_they_are(tmp_path):
    steps = [{"type": "quantize.rtn", "bits": 4}, {"type": "prune.magnitude", "sparsity": 0.5}]
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(steps))
    assert parse_recipe([f"@{file}"]) == steps
    assert parse_recipe([json.dumps(steps[0])]) == steps[:1]


@pytest.mark.parametrize("between", [":", ";", "; "])
def test_a_step_without_its_commas_is_refused_and_the_hint_has_them(between):
    with pytest.raises(HemostatError) as caught:
        parse_recipe([f"quantize.rtn:bits=4{between}group_size=64"])
    assert "comma" in caught.value.detail
    assert parse_recipe([caught.value.hint.split("--recipe ")[1]]) == [
        {"type": "quantize.rtn", "bits": 4, "group_size": 64}
    ]


@pytest.mark.parametrize("step", ["quantize.rtn:bits", "{broken", "[1]"])
def test_a_faulty_step_is_named(step):
    with pytest.raises(HemostatError) as caught:
        parse_recipe([step])
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert step.rsplit(":", maxsplit=1)[-1][:4] in caught.value.detail


@pytest.mark.parametrize(
    ("written", "source"),
    [
        (None, {"source": "shipped"}),
        ("shipped:12", {"source": "shipped", "documents": 12}),
        ("self:4096", {"source": "self", "tokens": 4096}),
        ("hub:some/set:body", {"source": "hub", "dataset": "some/set", "column": "body"}),
    ],
)
def test_text_sources_have_a_short_form(written, source):
    assert parse_text(written) == source


def test_local_files_and_folders_are_sent_along(tmp_path):
    (tmp_path / "a.txt").write_text("Zażółć gęślą jaźń", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"id": "x", "domain": "code", "text": "y = 1"}\n\n', encoding="utf-8")
    assert parse_text(str(tmp_path)) == {
        "source": "inline",
        "documents": [{"id": "a.txt", "text": "Zażółć gęślą jaźń"}, {"id": "x", "domain": "code", "text": "y = 1"}],
    }


def test_local_text_is_read_as_a_service_reads_it(tmp_path):
    (tmp_path / "LOUD.TXT").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")  # a byte order mark; Windows' ends of lines
    odd = "a\u2028b\u0085c\u000bd"  # ends of lines to Python, characters of a string to JSON (the last one escaped)
    lines = [json.dumps({"id": "x", "text": odd[:4]}, ensure_ascii=False), json.dumps({"id": "y", "text": odd})]
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert parse_text(str(tmp_path))["documents"] == [
        {"id": "LOUD.TXT", "text": "one\r\ntwo\r\n"},
        {"id": "x", "text": odd[:4]},
        {"id": "y", "text": odd},
    ]


def test_hidden_files_and_folders_are_not_sent(tmp_path):
    for name in (".secret.txt", ".git/notes.md", "in/.cache/x.jsonl", "in/kept.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert parse_text(str(tmp_path))["documents"] == [{"id": "in/kept.txt", "text": "in/kept.txt"}]


def test_a_folder_is_read_into_whatever_it_is_called_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "notes.txt").mkdir()
    (tmp_path / "notes.txt" / "a.txt").write_text("one")
    assert parse_text(str(tmp_path))["documents"] == [{"id": "notes.txt/a.txt", "text": "one"}]
    os.mkfifo(tmp_path / "pipe.txt")
    found: list[HemostatError] = []

    def read():
        with pytest.raises(HemostatError) as caught:
            parse_text(str(tmp_path))
        found.append(caught.value)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert [error.code for error in found] == [ErrorCode.TEXT_NOT_FOUND]
    assert "pipe.txt" in found[0].detail


def test_a_missing_file_a_binary_one_and_a_bad_line_say_which(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.jsonl").write_text('{"id": "x", "text": "y"}\nnonsense\n')
    for name, code, part in (
        ("missing.txt", ErrorCode.TEXT_NOT_FOUND, "missing.txt"),
        ("binary.txt", ErrorCode.DOCUMENT_NOT_TEXT, "binary.txt"),
        ("bad.jsonl", ErrorCode.INVALID_REQUEST, "line 2"),
    ):
        with pytest.raises(HemostatError) as caught:
            parse_text(str(tmp_path / name))
        assert caught.value.code is code
        assert part in caught.value.detail


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "y", "txt": "z"}', "line 2 is not a document: there is no field 'txt'; did you mean 'text'?"),
        ('{"id": "y", "text": "secret", "messages": []}', "line 2 is not a document: messages: "),
        ('{"text": "secret"}', "line 2 is not a document: id: "),
        ('{"id": "y", "messages": [{"role": "king", "content": "secret"}]}', "messages.0.role: "),
    ],
)
def test_a_line_that_is_no_document_is_named_by_file_and_line(tmp_path, line, told):
    (tmp_path / "bad.jsonl").write_text('{"id": "x", "text": "y"}\n' + line)
    with pytest.raises(HemostatError) as caught:
        parse_text(str(tmp_path / "bad.jsonl"))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "bad.jsonl, line 2" in caught.value.detail
    assert told in caught.value.detail
    assert "secret" not in caught.value.detail


def test_a_parameter_given_twice_is_refused():
    with pytest.raises(HemostatError) as caught:
        parse_recipe(["quantize.rtn:bits=4,bits=5"])
    assert "bits twice" in caught.value.detail


def test_each_error_hints_at_its_own_option():
    for parse, argument, part in (
        (parse_recipe, ["@missing.json"], "JSON"),
        (parse_recipe, ["quantize.rtn:layers=0,29"], "layers=0+1+29"),
        (parse_text, "shipped:abc", "shipped:20"),
        (parse_text, "missing.txt", "shipped"),
    ):
        with pytest.raises(HemostatError) as caught:
            parse(argument)
        assert part in caught.value.hint


def test_the_calibration_text_of_a_step_has_the_same_short_forms(tmp_path):
    file = tmp_path / "one+two.txt"
    file.write_text("some text", encoding="utf-8")
    (step,) = parse_recipe([f"prune.wanda:sparsity=0.5,calibration={file}"])
    assert step["calibration"] == {"source": "inline", "documents": [{"id": "one+two.txt", "text": "some text"}]}
    for written, source in (
        ("calibration:20", {"source": "shipped", "corpus": "calibration", "documents": 20}),
        ("self:4096", {"source": "self", "tokens": 4096}),
        ('{"source": "self"}', {"source": "self"}),
    ):
        assert parse_recipe([f"quantize.gptq:bits=4,calibration={written}"])[0]["calibration"] == source
    with pytest.raises(HemostatError, match="there is no file evaluation"):
        parse_recipe(["prune.wanda:sparsity=0.5,calibration=evaluation"])


@pytest.mark.parametrize(
    ("step", "written"),
    [
        ({"type": "quantize.rtn", "bits": 4}, "quantize.rtn:bits=4"),
        ({"type": "prune.wanda", "pattern": "2:4", "layers": [1]}, "prune.wanda:pattern=2:4,layers=1"),
        ({"type": "norm.drop"}, "norm.drop"),
        ({"type": "a", "group_size": None, "symmetric": True}, "a:group_size=null,symmetric=true"),
        ({"type": "a", "name": "4"}, None),
        ({"type": "a", "name": "x,y"}, None),
        ({"type": "a", "path": ["one"]}, None),
        ({"type": "a", "bits": {"sweep": [2, 4]}}, None),
    ],
)
def test_a_step_is_written_in_short_only_if_that_reads_back(step, written):
    assert step_word(step) == (written or json.dumps(step))
    assert parse_recipe([step_word(step)]) == [step]
