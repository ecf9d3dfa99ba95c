import json

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.text import InlineText, ToolCall
from app.jobs import faults
from app.jobs.parsing import parse_submission
from app.kinds.registry import submissions
from app.problems import MAX_ERRORS, RequestError
from tests.support.submissions import refused


def request():
    return {
        "kind": "compare",
        "reference": {"model": "m"},
        "candidate": {"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
        "text": {"source": "inline", "documents": [{"id": "a", "text": "hello"}, {"id": "b", "text": "there"}]},
    }


STEP = "/candidate/recipe/0"
INVALID, NOT_TEXT = ErrorCode.INVALID_REQUEST, ErrorCode.DOCUMENT_NOT_TEXT


def first(body):
    return body["candidate"]["recipe"][0]


def step(**fields):
    return lambda b: b["candidate"].update(recipe=[fields])


def changed(change):
    body = request()
    change(body)
    return body


def test_a_valid_body_is_a_request():
    parsed = parse_submission(json.dumps(request()).encode())
    assert parsed == submissions().validate_python(request())


def conversation(arguments):
    """With a call in the form of OpenAI's API, as its client dumps it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    said = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "assistant", "content": "2", "refusal": None, "tool_calls": None},
    ]
    plain = [said[0], {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}]
    documents = [{"id": "a", "messages": said}, {"id": "b", "messages": plain}]
    return request() | {"text": {"source": "inline", "documents": documents}}


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_a_conversation_with_calls_is_a_request(arguments):
    """Read strictly, where a list that a validator hands on is no list of JSON any more."""
    body = conversation(arguments)
    parsed = parse_submission(json.dumps(body).encode())
    assert isinstance(parsed.text, InlineText)
    calls = [document.messages[1].tool_calls for document in parsed.text.documents if document.messages]
    assert calls == [(ToolCall(name="add", arguments={"a": 1}),)] * 2


@pytest.mark.parametrize(
    ("arguments", "words"), [("nope", "not JSON"), ("[" * 5_000, "nested deeper"), ("[]" * 100_000, "too many values")]
)
def test_arguments_of_a_call_that_cannot_be_read_are_told_where_they_stand(arguments, words):
    error = refused(json.dumps(conversation(arguments)).encode())
    assert error.pointer.startswith("/text/documents/0/messages/1/tool_calls/0")
    assert words in error.detail


@pytest.mark.parametrize(
    ("change", "code", "pointer", "hint"),
    [
        (lambda b: b.update(kind="comprae"), ErrorCode.UNKNOWN_KIND, "/kind", "'compare'"),
        (lambda b: b.pop("kind"), INVALID, "/kind", "compare"),
        (lambda b: b.update(windw=3), ErrorCode.UNKNOWN_FIELD, "/windw", "'window'"),
        (lambda b: b["reference"].update(modle="m"), ErrorCode.UNKNOWN_FIELD, "/reference/modle", "'model'"),
        (lambda b: first(b).update(grup_size=3), ErrorCode.UNKNOWN_FIELD, f"{STEP}/grup_size", "'group_size'"),
        (lambda b: first(b).update(type="quantize.rnt"), ErrorCode.UNKNOWN_RECIPE, f"{STEP}/type", "'quantize.rtn'"),
        (lambda b: first(b).pop("type"), INVALID, f"{STEP}/type", "quantize.rtn"),
        (lambda b: first(b).update(bits=1), INVALID, f"{STEP}/bits", None),
        (step(type="prune.magnitude", pattern="4:2"), ErrorCode.PATTERN_MISMATCH, f"{STEP}/pattern", None),
        (step(type="prune.wanda", sparsity=1.0), INVALID, f"{STEP}/sparsity", None),
        (step(type="prune.magnitude"), INVALID, STEP, None),
        (step(type="prune.magnitude", sparsity=0.5, scope="lyer"), INVALID, f"{STEP}/scope", "'layer'"),
        (lambda b: b["text"].update(source="inlin"), INVALID, "/text/source", "'inline'"),
        (lambda b: b["text"].update(documents=[]), INVALID, "/text/documents", None),
        (lambda b: b["text"]["documents"][1].update(text="a\0b"), NOT_TEXT, "/text/documents/1/text", None),
        (lambda b: b["text"]["documents"][1].update(text="a\ud800b"), NOT_TEXT, "/text/documents/1/text", None),
        (
            lambda b: b["text"]["documents"].__setitem__(
                0, {"id": "c", "messages": [{"role": "user", "content": "\udfff"}]}
            ),
            NOT_TEXT,
            "/text/documents/0/messages/0/content",
            None,
        ),
        (lambda b: b.update(metadata={"k": "\ud800"}), INVALID, "/metadata/k", None),
        (lambda b: b.update(metadata={"bad key": "v"}), INVALID, "/metadata/bad key", None),
        (lambda b: b.update(metadata={"a/b~c": "v"}), INVALID, "/metadata/a~1b~0c", None),
        (lambda b: b.update(window=True), INVALID, "/window", None),
        (lambda b: b.update(timeout_s=0), INVALID, "/timeout_s", None),
        (lambda b: b.update(seed=-1), INVALID, "/seed", "at least 0"),
        (step(type="quantize.rtn", bits=99), INVALID, f"{STEP}/bits", "bits must be at least 2 and at most 8."),
        (step(type="prune.wanda", sparsity=2), INVALID, f"{STEP}/sparsity", "below 1"),
        (lambda b: b.update(reference="m"), INVALID, "/reference", None),
        (lambda b: b["reference"].update(model="../m"), INVALID, "/reference/model", None),
        (lambda b: b.update(text=None), INVALID, "/text", None),
        (lambda b: b.update(thresholds={"mild": 3.0}), INVALID, "/thresholds", None),
        (lambda b: b["text"]["documents"].__setitem__(0, 5), INVALID, "/text/documents/0", None),
    ],
)
def test_each_fault_has_its_code_and_exact_pointer(change, code, pointer, hint):
    error = refused(changed(change))
    assert (error.code, error.pointer) == (code, pointer)
    if hint is not None:
        assert hint in error.detail + error.hint


def test_every_fault_is_listed():
    error = refused(changed(lambda b: (b.update(windw=1, seed=-1), b["candidate"]["recipe"][0].update(bits=11))))
    assert isinstance(error, RequestError)
    assert {part.pointer for part in error.errors} == {"/windw", "/seed", f"{STEP}/bits"}


@pytest.mark.parametrize(
    ("change", "detail", "hint"),
    [
        (
            step(type="quantize.rtn", bitz=4),
            "There is no field 'bitz'; did you mean 'bits'?",
            "valid: bits, form, group_size, layers, modules, symmetric, type",
        ),
        (step(type="quantize.rtn", bits=9), "bits is 9, which is too large.", "at least 2 and at most 8"),
        (step(type="quantize.rtn"), "The field 'bits' is missing.", "Give bits."),
        (step(type="quantize.rtn", bits=4, symmetric="yes"), "is 'yes', not true or false; did you mean true?", ""),
        (step(type="quantize.rtn", bits=4, layers=[-1]), "layers[0] is -1, which is too small.", "at least 0"),
        (step(type="prune.magnitude", pattern="2;4"), "pattern is '2;4', not N:M, such as 2:4.", ""),
        (step(type="prune.magnitude"), "Give either sparsity or pattern.", "such as 0.5"),
        (
            lambda b: b.update(precision="fp32"),
            "`precision` is 'fp32', not one of fast, float32; did you mean 'float32'?",
            "valid: fast, float32",
        ),
        (
            lambda b: b["reference"].update(model="my model"),
            "`reference.model` is 'my model', not letters, digits, '.', '_' and '-', the first",
            "`hemostat models list` shows the aliases, ",
        ),
        (
            lambda b: b.update(metadata={"bad key": "v"}),
            "The name 'bad key' in `metadata` is 'bad key', not letters",
            "Give letters",
        ),
        (lambda b: b.update(thresholds={"mild": 3.0}), "Thresholds must rise", "mild 0.01"),
    ],
)
def test_detail_and_hint_suffice_to_correct_the_request(change, detail, hint):
    error = refused(changed(change))
    assert detail in error.detail
    assert hint in error.hint
    assert "Input should" not in error.detail
    assert "^" not in error.detail + error.hint


def test_no_more_faults_are_worked_out_than_are_told(monkeypatch):
    hints: list[str] = []
    monkeypatch.setattr(faults, "meant", lambda word, _: hints.append(word) or "")
    error = refused(changed(lambda b: b.update({f"x{i}": 0 for i in range(5000)})))
    assert MAX_ERRORS <= len(hints) <= 2 * MAX_ERRORS
    assert error.detail.endswith("And 4996 more.")
    error = refused(changed(lambda b: b.update(metadata={f"k{i}": "\0" for i in range(5000)})))
    assert isinstance(error, RequestError)
    assert len(error.errors) == MAX_ERRORS


def test_a_name_that_comes_twice_is_found_among_many():
    names = [f"k{i}" for i in range(60_000)]
    body = "{" + ",".join(f'"{name}":0' for name in [*names, names[-1]]) + "}"
    assert "'k59999' twice" in refused(body.encode()).detail


def test_too_many_documents():
    documents = [{"id": str(i), "text": "ab"} for i in range(5001)]
    error = refused(changed(lambda b: b["text"].update(documents=documents)))
    assert (error.code, error.pointer) == (ErrorCode.TOO_MANY_DOCUMENTS, "/text/documents")
    parse_submission(json.dumps(changed(lambda b: b["text"].update(documents=documents[1:]))).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{} {}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"kind": "compare"}'.encode("utf-16"),
        b'{"window": NaN}',
        b'{"window": 1, "window": 2}',
        b'{"window": ' + b"1" * 5000 + b"}",
        b"[" * 200_000,
        b"{'kind': 'compare'}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_json_is_refused(body):
    assert refused(body).code is ErrorCode.INVALID_JSON


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b'{"kind": "tasks", "margin": NaN}', ["/margin"]),
        (b'{"a": {"b/c": [1, -Infinity]}, "kind": "no\\u0000"}', ["/a/b~1c/1"]),
        (b'{"b": Infinity, "a": Infinity}', ["/a", "/b"]),
        (b"NaN", [""]),
        (b'{"kind": "tasks", "margin": 1e999}', ["/margin"]),
    ],
)
def test_numbers_that_json_has_not_are_named_by_their_fields(body, pointers):
    error = refused(body)
    assert isinstance(error, RequestError)
    assert [part.pointer for part in error.errors] == pointers
    assert {part.code for part in error.errors} == {ErrorCode.INVALID_JSON}


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"null"])
def test_json_that_is_no_object_is_refused(body):
    assert refused(body).code is INVALID


def test_no_message_repeats_a_documents_text():
    secret = "the patient's name is"
    for change in (
        lambda b: b["text"]["documents"][0].update(text=secret + "\0"),
        lambda b: b["text"]["documents"][0].update(text=[secret]),
        lambda b: b["text"]["documents"][0].update(text=secret, messages=[{"role": "user", "content": secret}]),
        lambda b: b.update(store_text=secret),
    ):
        error = refused(changed(change))
        told = [error.detail, error.hint, *(f"{p.detail}{p.hint}" for p in getattr(error, "errors", ()))]
        assert not any("patient" in text for text in told), told


def place(name, documents):
    """A body with inline documents somewhere else than in `text`."""
    text = {"source": "inline", "documents": documents}
    if name == "/generate_tool_calls/text":
        return request() | {"generate_tool_calls": {"text": text}}
    step = {"type": "quantize.gptq", "bits": 4, "calibration": text}
    return request() | {"candidate": {"model": "m", "recipe": [step]}}


@pytest.mark.parametrize("name", ["/generate_tool_calls/text", f"{STEP}/calibration"])
def test_inline_documents_are_checked_wherever_they_stand(name):
    one = {"id": "a", "text": "words"}
    parse_submission(json.dumps(place(name, [one])).encode())
    for documents, code, pointer in (
        ([one | {"text": "the patient\0"}], NOT_TEXT, "/0/text"),
        ([one | {"text": ["the patient"]}], INVALID, "/0/text"),
        ([{"id": str(n), "text": "ab"} for n in range(5001)], ErrorCode.TOO_MANY_DOCUMENTS, ""),
    ):
        error = refused(place(name, documents))
        assert (error.code, error.pointer) == (code, f"{name}/documents{pointer}")
        assert "patient" not in error.detail + error.hint


def calibrate(**fields):
    return {"kind": "calibrate", "reference": {"model": "m"}, "self_check": True, "candidate": {"model": "m"}} | fields


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"precision": "fast"}, ErrorCode.UNKNOWN_FIELD, "/precision"),
        ({"calibratrs": ["lowrank"]}, ErrorCode.UNKNOWN_FIELD, "/calibratrs"),
        ({"calibrators": []}, INVALID, "/calibrators"),
        ({"calibrators": ["lowrnk"]}, INVALID, "/calibrators/0"),
        ({"tolerance": 1.0}, INVALID, "/tolerance"),
        ({"test_text": {"source": "inlin"}}, INVALID, "/test_text/source"),
        (
            {"test_text": {"source": "inline", "documents": [{"id": "a", "text": "b\0c"}]}},
            NOT_TEXT,
            "/test_text/documents/0/text",
        ),
    ],
)
def test_faults_of_a_calibrate_body_are_found_in_its_own_fields(fields, code, pointer):
    error = refused(calibrate(**fields))
    assert (error.code, error.pointer) == (code, pointer)


@pytest.mark.parametrize("kind", [[], {}, {"a": []}, [{}], 5, True, None])
def test_a_kind_that_is_no_text_is_refused(kind):
    error = refused(calibrate(kind=kind))
    assert (error.code, error.pointer) == (ErrorCode.UNKNOWN_KIND, "/kind")


def test_a_body_without_a_kind_is_judged_by_the_names_of_every_kind():
    error = refused({"kindd": "compare", "reference": {}})
    assert (error.code, error.pointer) == (ErrorCode.UNKNOWN_FIELD, "/kindd")
    assert "'kind'" in error.detail
    error = refused({"kind": "clibrate", "windw": 3})
    assert isinstance(error, RequestError)
    assert [(part.code, part.pointer) for part in error.errors] == [
        (ErrorCode.UNKNOWN_KIND, "/kind"),
        (ErrorCode.UNKNOWN_FIELD, "/windw"),
    ]
    assert "'calibrate'" in error.errors[0].hint
