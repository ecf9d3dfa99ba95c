from app.contracts.requests import SUBMISSION
from app.jobs.schema_walk import Schema

SCHEMA = Schema(SUBMISSION.json_schema())


def test_fields_follow_references_lists_and_the_tag_of_a_union() -> None:
    data = {
        "kind": "compare",
        "candidate": {"model": "m", "recipe": [{"type": "prune.magnitude"}, {"type": "quantize.rtn"}]},
        "text": {"source": "inline", "documents": [{"id": "a"}]},
    }
    assert "window" in SCHEMA.fields((), data)
    assert SCHEMA.fields(("candidate",), data) == ["model", "recipe"]
    assert "sparsity" in SCHEMA.fields(("candidate", "recipe", 0), data)
    assert "bits" in SCHEMA.fields(("candidate", "recipe", 1), data)
    assert "bits" not in SCHEMA.fields(("candidate", "recipe", 0), data)
    assert "text" in SCHEMA.fields(("text", "documents", 0), data)


def test_an_open_or_unknown_place_has_no_names() -> None:
    assert SCHEMA.fields(("metadata",), {"kind": "compare", "metadata": {}}) == []
    assert SCHEMA.fields(("no", "such", 3, "place"), {}) == []
    assert SCHEMA.fields(("text",), {"kind": "compare", "text": {"source": "nowhere"}}) == []
    assert SCHEMA.fields(("text",), {"kind": "compare", "text": {"source": ["list"]}}) == []


def test_tags_of_a_union() -> None:
    assert SCHEMA.tags(("text",), {"kind": "compare", "text": {}}) == ["file", "hub", "inline", "self", "shipped"]
    recipe = {"kind": "compare", "candidate": {"recipe": [{}]}}
    assert set(SCHEMA.tags(("candidate", "recipe", 0), recipe)) >= {"quantize.rtn", "prune.magnitude"}


def test_the_schema_of_a_place_and_of_free_names() -> None:
    data = {"kind": "compare", "candidate": {"recipe": [{"type": "quantize.rtn"}]}, "metadata": {"k": 1}}
    assert SCHEMA.at(("candidate", "recipe", 0, "bits"), data)["maximum"] == 8
    assert SCHEMA.at(("candidate", "recipe", 0, "group_size"), data)["type"] == "integer"
    assert SCHEMA.at(("metadata", "k"), data)["maxLength"] == 512
    assert SCHEMA.at(("no", "place"), data) == {}
    assert SCHEMA.names(("metadata",), data)["maxLength"] == 64
    assert "A-Za-z0-9" in SCHEMA.names(("metadata",), data)["pattern"]


def test_the_kind_chooses_among_whole_requests() -> None:
    assert "calibrators" in SCHEMA.fields((), {"kind": "calibrate"})
    assert "calibrators" not in SCHEMA.fields((), {"kind": "compare"})
    assert SCHEMA.fields((), {"kind": "cure"}) == []


def test_a_location_loses_the_tags_of_unions_and_keeps_fields_of_their_names() -> None:
    data = {
        "kind": "tasks",
        "candidate": {"recipe": [{"type": "quantize.rtn"}]},
        "tasks": [{"source": "file"}],
        "metadata": {"k": 1},
    }
    step = ("candidate", "recipe", 0)
    assert SCHEMA.place(("tasks", *step, "quantize.rtn", "bits"), data) == ((*step, "bits"), False)
    assert SCHEMA.place(("tasks", *step), data) == (step, False)
    assert SCHEMA.place(("tasks", "tasks", 0, "file", "path"), data) == (("tasks", 0, "path"), False)
    assert SCHEMA.place(("tasks", "tasks"), data) == (("tasks",), False)
    assert SCHEMA.place(("tasks",), data) == ((), False)
    assert SCHEMA.place(("tasks", "metadata", "k"), data) == (("metadata", "k"), False)
    assert SCHEMA.place(("tasks", "metadata", "k", "[key]"), data) == (("metadata", "k"), True)


def test_the_tag_of_a_decoder_may_be_called_as_its_field() -> None:
    data = {"kind": "trajectory", "decoders": [{"name": "temperature", "temperature": 3}]}
    loc = ("trajectory", "decoders", 0, "temperature")
    assert SCHEMA.place(loc, data).path == ("decoders", 0)
    assert SCHEMA.place((*loc, "temperature"), data).path == ("decoders", 0, "temperature")


def test_the_field_that_tells_members_of_a_union_apart() -> None:
    data = {"kind": "tasks", "candidate": {"recipe": [{"type": "quantize.gptq", "calibration": {}}]}, "tasks": [{}]}
    assert SCHEMA.tag_name(("tasks", 0), data) == "source"
    assert SCHEMA.tag_name(("candidate", "recipe", 0), data) == "type"
    assert SCHEMA.tag_name(("candidate", "recipe", 0, "calibration"), data) == "source"
    assert SCHEMA.tag_name(("window",), data) == ""
