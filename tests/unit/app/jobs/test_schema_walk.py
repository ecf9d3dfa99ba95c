from app.contracts.job import SubmitRequest
from app.jobs.schema_walk import Schema

SCHEMA = Schema(SubmitRequest.model_json_schema())


def test_fields_follow_references_lists_and_the_tag_of_a_union() -> None:
    data = {
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
    assert SCHEMA.fields(("metadata",), {"metadata": {}}) == []
    assert SCHEMA.fields(("no", "such", 3, "place"), {}) == []
    assert SCHEMA.fields(("text",), {"text": {"source": "nowhere"}}) == []
    assert SCHEMA.fields(("text",), {"text": {"source": ["list"]}}) == []


def test_tags_of_a_union() -> None:
    assert SCHEMA.tags(("text",), {"text": {}}) == ["file", "hub", "inline", "self", "shipped"]
    recipe = {"candidate": {"recipe": [{}]}}
    assert set(SCHEMA.tags(("candidate", "recipe", 0), recipe)) >= {"quantize.rtn", "prune.magnitude"}


def test_the_schema_of_a_place_and_of_free_names() -> None:
    data = {"candidate": {"recipe": [{"type": "quantize.rtn"}]}, "metadata": {"k": 1}}
    assert SCHEMA.at(("candidate", "recipe", 0, "bits"), data)["maximum"] == 8
    assert SCHEMA.at(("candidate", "recipe", 0, "group_size"), data)["type"] == "integer"
    assert SCHEMA.at(("metadata", "k"), data)["maxLength"] == 512
    assert SCHEMA.at(("no", "place"), data) == {}
    assert SCHEMA.names(("metadata",), data)["maxLength"] == 64
    assert "A-Za-z0-9" in SCHEMA.names(("metadata",), data)["pattern"]
