import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import ShippedText
from app.kinds.preflight import check_request
from app.kinds.sweep.request import SweepRequest
from app.models.registry import load_registry
from tests.support.asked import DOCUMENT, RTN, calibration, request
from tests.support.copies import edit_json

E = ErrorCode
Tiny = Callable[..., Path]


Check = Callable[..., HemostatError]


@pytest.fixture
def refused(registry, settings):
    def check(asked, code, pointer, *, settings=settings):
        with pytest.raises(HemostatError) as caught:
            check_request(asked, registry, settings)
        assert (caught.value.code, caught.value.pointer) == (code, pointer)
        assert caught.value.hint
        return caught.value

    return check


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(RTN),
        request(RTN | {"modules": ["lm_head"]}, {"type": "prune.magnitude", "pattern": "2:4"}),
        request(candidate="untied"),
        request(text={"source": "self"}),
        request(text={"source": "shipped"}),
        request(text={"source": "file", "path": "one.txt"}),
        request(text={"source": "file", "path": "many"}),
        request(text={"source": "file", "path": "."}),
        request(window=256),
        request(documents=[{"id": "1", "text": "ß"}, {"id": "2", "text": "ab"}]),
        request(documents=[{"id": "1", "messages": [{"role": "assistant", "content": "ok"}]}]),
    ],
)
def test_what_can_run_is_accepted(registry, settings, asked):
    check_request(asked, registry, settings)


def test_text_of_the_hub_is_accepted_if_the_operator_has_allowed_it(registry, settings):
    asked = request(text={"source": "hub", "dataset": "wikitext"})
    check_request(asked, registry, settings.model_copy(update={"hub_text": "wikitext"}))
    with pytest.raises(HemostatError) as caught:
        check_request(asked, registry, settings)
    assert (caught.value.code, caught.value.pointer) == (E.HUB_FORBIDDEN, "/text/dataset")


@pytest.mark.parametrize(
    ("models", "code", "pointer"),
    [
        ({"reference": "lama"}, E.UNKNOWN_MODEL, "/reference/model"),
        ({"candidate": "untid"}, E.UNKNOWN_MODEL, "/candidate/model"),
        ({"reference": "gone"}, E.CHECKPOINT_NOT_FOUND, "/reference/model"),
        ({"candidate": "gone"}, E.CHECKPOINT_NOT_FOUND, "/candidate/model"),
        ({"candidate": "broken"}, E.CHECKPOINT_CORRUPT, "/candidate/model"),
        ({"reference": "broken"}, E.CHECKPOINT_CORRUPT, "/reference/model"),
        ({"candidate": "padded"}, E.VOCABULARY_MISMATCH, "/candidate/model"),
        ({"reference": "padded", "candidate": "untied"}, E.VOCABULARY_MISMATCH, "/candidate/model"),
        ({"candidate": "other-tokens"}, E.VOCABULARY_MISMATCH, "/candidate/model"),
    ],
)
def test_models_are_held_against_each_other(refused, models, code, pointer):
    error = refused(request(**models), code, pointer)
    if code is E.CHECKPOINT_CORRUPT:
        assert error.detail.startswith("checkpoint broken: ")


def test_the_first_difference_of_vocabularies_is_named(refused):
    detail = refused(request(candidate="padded"), E.VOCABULARY_MISMATCH, "/candidate/model").detail
    assert "llama has 320 tokens" in detail
    assert "padded has 333: token 320 is in one of them only" in detail
    detail = refused(request(candidate="other-tokens"), E.VOCABULARY_MISMATCH, "/candidate/model").detail
    assert detail.startswith("the pre-tokenizer is")


@pytest.mark.parametrize("link", ["folder", "files", "none"])
def test_one_model_by_two_names_is_compared_with_itself_only_if_that_is_asked_for(registry, settings, tmp_path, link):
    """The hub's cache has a folder of links to files."""
    folder = registry.resolve("llama").checkpoint_path()
    named = folder if link == "none" else tmp_path / "linked"
    if link == "folder":
        named.symlink_to(folder)
    elif link == "files":
        named.mkdir()
        for file in folder.iterdir():
            (named / file.name).symlink_to(file)
    registry.file.write_text(registry.file.read_text() + f"[models.again]\npath = {json.dumps(str(named))}\n")
    registry = load_registry(registry.file)
    with pytest.raises(HemostatError) as caught:
        check_request(request(candidate="again", self_check=False), registry, settings)
    assert (caught.value.code, caught.value.pointer) == (E.INVALID_REQUEST, "/candidate/model")
    assert "llama and again" in caught.value.detail
    check_request(request(RTN, candidate="again", self_check=False), registry, settings)
    check_request(request(candidate="again"), registry, settings)
    check_request(request(candidate="untied", self_check=False), registry, settings)


def test_a_model_may_borrow_a_tokenizer(registry, settings, tiny):
    registry.file.write_text(
        registry.file.read_text()
        + f"[models.borrowing]\npath = {json.dumps(str(registry.resolve('other-tokens').path))}\n"
        + f"tokenizer = {json.dumps(str(tiny()))}\n"
    )
    check_request(request(candidate="borrowing"), load_registry(registry.file), settings)


@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_a_model_without_a_tokenizer_is_refused_where_it_is_named(registry, settings, copy, side):
    """As `save_pretrained` of the model alone leaves it."""
    folder = copy(name="bare")
    (folder / "tokenizer.json").unlink()
    registry.file.write_text(registry.file.read_text() + f"[models.bare]\npath = {json.dumps(str(folder))}\n")
    asked = request(candidate="bare") if side == "candidate" else request(RTN, reference="bare", candidate="bare")
    with pytest.raises(HemostatError) as caught:
        check_request(asked, load_registry(registry.file), settings)
    assert (caught.value.code, caught.value.pointer) == (E.CHECKPOINT_INCOMPLETE, f"/{side}/model")
    assert "model 'bare': bare has no tokenizer.json" in caught.value.detail


def test_two_dtypes_are_not_compared(registry, settings, tiny):
    registry.file.write_text(
        registry.file.read_text() + f'[models.precise]\npath = {json.dumps(str(tiny()))}\ndtype = "float32"\n'
    )
    with pytest.raises(HemostatError) as caught:
        check_request(request(candidate="precise"), load_registry(registry.file), settings)
    assert (caught.value.code, caught.value.pointer) == (E.INVALID_REQUEST, "/candidate/model")
    check_request(request(reference="precise", candidate="precise"), load_registry(registry.file), settings)


def test_a_window_must_fit_the_context(refused):
    error = refused(request(window=257), E.WINDOW_TOO_LARGE, "/window")
    assert "256" in error.hint


def test_a_context_without_a_limit_takes_any_window(registry, settings, copy):
    folder = copy(name="endless")
    edit_json(folder / "config.json", max_position_embeddings=None)
    registry.file.write_text(registry.file.read_text() + f"[models.endless]\npath = {json.dumps(str(folder))}\n")
    asked = request(reference="endless", candidate="endless", window=1_000_000)
    check_request(asked, load_registry(registry.file), settings)


@pytest.mark.parametrize(
    ("steps", "code", "pointer"),
    [
        ([RTN | {"layers": [0, 3]}], E.UNKNOWN_MODULE, "/candidate/recipe/0/layers/1"),
        ([RTN, RTN | {"modules": ["q_prj"]}], E.UNKNOWN_MODULE, "/candidate/recipe/1/modules/0"),
        ([RTN | {"group_size": 48}], E.GROUP_SIZE_MISMATCH, "/candidate/recipe/0/group_size"),
        ([RTN, {"type": "prune.magnitude", "pattern": "2:3"}], E.PATTERN_MISMATCH, "/candidate/recipe/1/pattern"),
        ([RTN | {"layers": [0], "modules": ["embed_tokens"]}], E.RECIPE_NOT_APPLICABLE, "/candidate/recipe/0/layers"),
    ],
)
def test_recipes_are_held_against_the_candidate(refused, steps, code, pointer):
    refused(request(*steps), code, pointer)


def test_a_recipe_on_a_packed_checkpoint(registry, settings, copy):
    folder = copy(name="packed")
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}
    edit_json(
        folder / "config.json",
        quantization_config={"quant_method": "compressed-tensors", "config_groups": {"g": group}},
    )
    registry.file.write_text(registry.file.read_text() + f"[models.packed]\npath = {json.dumps(str(folder))}\n")
    registry = load_registry(registry.file)
    check_request(request(candidate="packed"), registry, settings)
    with pytest.raises(HemostatError) as caught:
        check_request(request(RTN, candidate="packed"), registry, settings)
    assert (caught.value.code, caught.value.pointer) == (E.RECIPE_NOT_APPLICABLE, "/candidate/recipe")


# ---- text


@pytest.mark.parametrize(
    ("documents", "code", "pointer"),
    [
        ([DOCUMENT, DOCUMENT], E.INVALID_REQUEST, "/text/documents/1/id"),
        ([DOCUMENT, {"id": "e", "text": ""}], E.DOCUMENT_TOO_SHORT, "/text/documents/1/text"),
        ([{"id": "e", "text": "a"}], E.DOCUMENT_TOO_SHORT, "/text/documents/0/text"),
        ([{"id": "n", "text": "a\0b"}], E.DOCUMENT_NOT_TEXT, "/text/documents/0/text"),
        (
            [{"id": "n", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\0"}]}],
            E.DOCUMENT_NOT_TEXT,
            "/text/documents/0/messages/1/content",
        ),
        (
            [DOCUMENT, {"id": "q", "messages": [{"role": "user", "content": "hi there"}]}],
            E.DOCUMENT_TOO_SHORT,
            "/text/documents/1",
        ),
    ],
)
def test_documents_are_looked_at(refused, documents, code, pointer):
    refused(request(documents=documents), code, pointer)


def test_documents_of_other_texts_are_looked_at_as_well(refused):
    twice = {"source": "inline", "documents": [DOCUMENT, DOCUMENT]}
    step = {"type": "quantize.gptq", "bits": 4, "calibration": twice, "calibration_window": 64}
    refused(request(step), E.INVALID_REQUEST, "/candidate/recipe/0/calibration/documents/1/id")


def test_half_a_character_is_no_text(refused):
    asked = request()
    document = asked.text.documents[0].model_copy(update={"text": "ab\ud83d"})
    broken = asked.model_copy(update={"text": asked.text.model_copy(update={"documents": (document,)})})
    error = refused(broken, E.DOCUMENT_NOT_TEXT, "/text/documents/0/text")
    assert "U+D83D" in error.detail
    assert "character 2" in error.detail


def test_no_error_quotes_a_document(refused):
    error = refused(
        request(documents=[{"id": "n", "text": "secret\0word"}]), E.DOCUMENT_NOT_TEXT, "/text/documents/0/text"
    )
    assert "secret" not in error.detail + error.hint


def test_a_conversation_needs_a_chat_template(refused):
    chat = [{"id": "c", "messages": [{"role": "assistant", "content": "hello"}]}]
    asked = request(reference="mute", candidate="mute", documents=chat)
    refused(asked, E.CHAT_TEMPLATE_MISSING, "/text/documents/0/messages")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../models.toml", E.PATH_FORBIDDEN),
        ("/etc/passwd", E.PATH_FORBIDDEN),
        ("many/../../models.toml", E.PATH_FORBIDDEN),
        ("a\0b", E.PATH_FORBIDDEN),
        ("out", E.PATH_FORBIDDEN),
        ("none.txt", E.TEXT_NOT_FOUND),
        ("empty", E.TEXT_NOT_FOUND),
        ("dangling.txt", E.TEXT_NOT_FOUND),
        ("notes.md", E.DOCUMENT_NOT_TEXT),
    ],
)
def test_files_are_looked_for_below_the_root(refused, text_root, path, code):
    (text_root / "out").symlink_to(text_root.parent)
    (text_root / "dangling.txt").symlink_to(text_root / "nothing.txt")
    refused(request(text={"source": "file", "path": path}), code, "/text/path")


def test_a_link_in_a_folder_that_leads_out(refused, text_root):
    (text_root.parent / "secret.txt").write_text("secret")
    (text_root / "many/link.txt").symlink_to(text_root.parent / "secret.txt")
    refused(request(text={"source": "file", "path": "many"}), E.PATH_FORBIDDEN, "/text/path")


def test_without_a_text_root_no_file_is_read(refused, settings):
    bare = settings.model_copy(update={"text_root": None})
    refused(request(text={"source": "file", "path": "one.txt"}), E.PATH_FORBIDDEN, "/text/path", settings=bare)


def test_the_window_of_a_context_sweep_is_held_against_its_values(registry, settings):
    """The recipe's own factor is a placeholder, and too small for the window."""
    body = {
        "kind": "sweep",
        "reference": {"model": "llama"},
        "candidate": {"model": "llama", "recipe": [{"type": "context.yarn", "factor": 2}]},
        "text": {"source": "inline", "documents": [DOCUMENT]},
        "window": 1024,
    }
    knob = {"step": 0, "field": "factor"}
    check_request(SweepRequest.model_validate(body | {"knobs": [knob | {"values": [4, 8]}]}), registry, settings)
    with pytest.raises(HemostatError) as caught:
        short = SweepRequest.model_validate(body | {"knobs": [knob | {"values": [3, 8]}]})
        check_request(short, registry, settings)
    assert caught.value.code is E.WINDOW_TOO_LARGE
    assert "at factor = 3" in caught.value.detail


def test_strengths_out_of_range_never_reach_the_check():
    for step in ({"type": "quantize.rtn", "bits": 1}, {"type": "quantize.rtn", "bits": 9}):
        with pytest.raises(ValidationError):
            request(step)
    with pytest.raises(ValidationError, match="N must be smaller than M"):
        request({"type": "prune.magnitude", "pattern": "4:2"})


def test_the_test_of_a_calibration_is_the_evaluation_text_unless_another_is_given():
    default = calibration().tested
    assert isinstance(default, ShippedText)
    assert default.corpus == "evaluation"
    assert calibration(text={"source": "shipped"}).tested is None
    own = {"source": "inline", "documents": [{"id": "a", "text": "one two three"}]}
    assert calibration(test_text=own).tested is not None


def test_a_fault_of_the_test_text_is_found_at_its_own_place(registry, settings):
    twice = {"source": "inline", "documents": [{"id": "a", "text": "one two"}, {"id": "a", "text": "three four"}]}
    with pytest.raises(HemostatError) as caught:
        check_request(calibration(test_text=twice), registry, settings)
    assert caught.value.pointer == "/test_text/documents/1/id"


def test_a_field_that_decides_nothing_is_named_before_the_job_is_queued(refused):
    pattern = {"type": "prune.magnitude", "pattern": "2:4", "scope": "row"}
    refused(request(RTN, pattern), E.RECIPE_NOT_APPLICABLE, "/candidate/recipe/1/scope")


def test_a_sweep_may_turn_on_what_makes_another_field_count(registry, settings):
    step = {"type": "prune.wanda", "sparsity": 0.5, "owl_range": 0.1, "calibration_window": 64}
    body = request(step).model_dump(mode="json")
    shared = {name: body[name] for name in ("reference", "candidate", "text", "window")}
    knob = {"step": 0, "field": "allocation", "values": ["uniform", "owl"]}
    check_request(
        SweepRequest.model_validate_json(json.dumps(shared | {"kind": "sweep", "knobs": [knob]})), registry, settings
    )
