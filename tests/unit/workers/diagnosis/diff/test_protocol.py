"""Which reports may be compared, and what is said of those that may not."""

from app.kinds.compare.report import CompareReport
from tests.support.reports import compare_report
from workers.diagnosis.diff.protocol import PARTS, mismatches, sentence


def report(**changes):
    data = compare_report()
    for name, value in changes.items():
        origin = data["provenance"]
        origin[name] = origin[name] | value if isinstance(value, dict) else value
    return CompareReport.model_validate(data)


def test_reports_of_one_protocol_are_comparable():
    other = report(candidate={"model": "another", "weights_fingerprint": "9" * 64}, seed=5, seconds={"x": 1.0})
    assert mismatches({"a": report(), "b": other}) == []


CHANGES = [
    ({"protocol": {"tokenizer_fingerprint": "f" * 64}}, "tokenizer", f"{'f' * 16}…"),
    ({"protocol": {"window": 256}}, "window", "256"),
    ({"protocol": {"stride": 128}}, "stride", "128"),
    ({"protocol": {"bos": True}}, "BOS", "yes"),
    ({"protocol": {"chat_template": True}}, "chat template", "yes"),
    ({"protocol": {"scored": "second half"}}, "scored positions", "second half"),
    ({"protocol": {"vocabulary": 32000}}, "vocabulary", "32000"),
    ({"dtype": "float32"}, "dtype", "float32"),
    ({"engine": "vllm 9.9"}, "engine", "vllm 9.9"),
    ({"execution": "compiled, batches of 64"}, "execution", "compiled, batches of 64"),
    ({"device": "H100"}, "device", "H100"),
    ({"precision": "float32"}, "arithmetic of the divergence", "float32"),
    ({"reference": {"weights_fingerprint": "d" * 64}}, "reference", f"{'d' * 16}…"),
]


def test_each_difference_is_named_with_both_values():
    assert len(PARTS) == len(CHANGES) + 1, "each part but the text"
    for change, what, shown in CHANGES:
        [found] = mismatches({"a": report(), "b": report(**change)})
        assert (found.what, found.other) == (what, shown)
        assert sentence(found).startswith(f"{what}: a ") and sentence(found).endswith(f"b {shown}")


def test_texts_are_told_by_their_size_and_then_by_their_fingerprint():
    eight = report().model_copy(update={"documents": 8, "tokens": 1303})
    one = report(protocol={"text_fingerprint": "e" * 64}).model_copy(update={"documents": 1, "tokens": 1})
    [found] = mismatches({"a": eight, "b": one})
    first = eight.provenance.protocol.text_fingerprint
    assert found.what == "text"
    assert found.one == f"8 documents with 1,303 scored tokens, fingerprint {first[:16]}…"
    assert found.other == f"1 document with 1 scored token, fingerprint {'e' * 16}…"


def test_several_differences_are_all_named_once():
    odd = report(dtype="float32", protocol={"window": 256})
    found = mismatches({"a": report(), "b": odd, "c": odd})
    assert [(one.what, one.reports) for one in found] == [
        (what, ("a", other)) for what in ("window", "dtype") for other in "bc"
    ]


RULE = (
    "documents tokenized without special tokens, cut into windows of at most {0} tokens that do not overlap (stride "
    "{1}) and do not cross documents, {2}; scored is every token after the {3}{4}; a shorter last window counts from "
    "two tokens on"
)


def ruled(window=512, *, bos=False, chat=False, beyond=None):
    """A report with the sentence that its window, BOS and conversations make."""
    begins, after = ("each begins with the BOS", "BOS") if bos else ("without BOS", "first of its window")
    scored = RULE.format(
        window, window - bos, begins, after, ", of conversations only what the assistant wrote" if chat else ""
    )
    if beyond:
        scored += f"; beyond its context of {beyond} tokens the reference reads the newest {beyond - 1} tokens"
    protocol = {"window": window, "stride": window - bos, "bos": bos, "chat_template": chat, "scored": scored}
    return report(protocol=protocol)


def told(one, other):
    return [sentence(found) for found in mismatches({"a": one, "b": other})]


def test_rules_that_differ_in_more_are_told():
    assert [one.split(":")[0] for one in told(ruled(), ruled(128, chat=True))] == [
        "window",
        "stride",
        "chat template",
        "scored positions",
    ]
    assert told(ruled(1024), ruled(1024, beyond=768))[0].startswith("scored positions: ")
