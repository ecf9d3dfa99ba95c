"""What is checked of a request before it is queued, and where each fault is found."""

import json
import shutil

import pytest

from app.contracts.errors import ErrorCode
from app.kinds import preflight
from app.kinds.preflight import check_request
from app.kinds.sweep.request import SweepRequest
from tests.support.asked import DOCUMENT, RTN, calibration, registered, rejection, request
from tests.support.copies import edit_json

E = ErrorCode


@pytest.fixture
def refused(registry, settings):
    def check(asked, code, pointer, *, registry=registry, settings=settings):
        error = rejection(asked, registry, settings)
        assert (error.code, error.pointer) == (code, pointer)
        return error

    return check


def _turn_a_bit(folder):
    file = next(folder.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_what_can_run_is_accepted(registry, settings):
    for asked in (
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
    ):
        check_request(asked, registry, settings)


def test_text_of_the_hub_is_accepted_if_the_operator_has_allowed_it(registry, settings, refused):
    asked = request(text={"source": "hub", "dataset": "wikitext"})
    check_request(asked, registry, settings.model_copy(update={"hub_text": "wikitext"}))
    refused(asked, E.HUB_FORBIDDEN, "/text/dataset")


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
    if models == {"candidate": "padded"}:
        assert "token 320 is in one of them only" in error.detail


@pytest.mark.parametrize("link", ["folder", "files", "none", "copy"])
def test_one_model_by_two_names_is_compared_with_itself_only_if_that_is_asked_for(
    registry, settings, tmp_path, refused, link
):
    """The hub's cache has a folder of links to files."""
    folder = registry.resolve("llama").checkpoint_path()
    named = folder if link == "none" else tmp_path / "linked"
    if link == "copy":
        shutil.copytree(folder, named)
    elif link == "folder":
        named.symlink_to(folder)
    elif link == "files":
        named.mkdir()
        for file in folder.iterdir():
            (named / file.name).symlink_to(file)
    registry = registered(registry, "again", named)
    refused(request(candidate="again", self_check=False), E.INVALID_REQUEST, "/candidate/model", registry=registry)
    check_request(request(RTN, candidate="again", self_check=False), registry, settings)
    check_request(request(candidate="again"), registry, settings)
    check_request(request(candidate="untied", self_check=False), registry, settings)


@pytest.mark.parametrize(
    "change",
    [_turn_a_bit, lambda folder: edit_json(folder / "config.json", rope_theta=5e4)],
    ids=["weight", "setting"],
)
def test_a_copy_with_one_other_weight_or_setting_is_another_model(registry, settings, copy, change):
    folder = copy(name="twin")
    change(folder)
    check_request(request(candidate="twin", self_check=False), registered(registry, "twin", folder), settings)


def test_a_text_of_one_token_is_refused_before_the_job(registry, refused):
    vocabulary = json.loads((registry.resolve("llama").tokenizer_path() / "tokenizer.json").read_text())["model"][
        "vocab"
    ]
    word = max((token for token in vocabulary if token.isalpha() and token.isascii()), key=len)
    assert len(word) > 1
    refused(request(documents=[{"id": "1", "text": word}]), E.DOCUMENT_TOO_SHORT, "/text/documents/0/text")


def test_large_copies_are_left_to_the_worker(registry, settings, copy, monkeypatch):
    monkeypatch.setattr(preflight, "MOST_COMPARED", 1000)
    check_request(
        request(candidate="twin", self_check=False), registered(registry, "twin", copy(name="twin")), settings
    )


@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_a_model_without_a_tokenizer_is_refused_where_it_is_named(registry, refused, copy, side):
    """As `save_pretrained` of the model alone leaves it."""
    folder = copy(name="bare")
    (folder / "tokenizer.json").unlink()
    asked = request(candidate="bare") if side == "candidate" else request(RTN, reference="bare", candidate="bare")
    refused(asked, E.CHECKPOINT_INCOMPLETE, f"/{side}/model", registry=registered(registry, "bare", folder))


def test_two_dtypes_are_not_compared(registry, settings, refused, tiny):
    registry = registered(registry, "precise", tiny(), dtype="float32")
    refused(request(candidate="precise"), E.INVALID_REQUEST, "/candidate/model", registry=registry)
    check_request(request(reference="precise", candidate="precise"), registry, settings)


def test_a_window_must_fit_the_context_if_that_has_a_limit(registry, settings, refused, copy):
    assert "256" in refused(request(window=257), E.WINDOW_TOO_LARGE, "/window").hint
    folder = copy(name="endless")
    edit_json(folder / "config.json", max_position_embeddings=None)
    asked = request(reference="endless", candidate="endless", window=1_000_000)
    check_request(asked, registered(registry, "endless", folder), settings)


def test_recipes_are_held_against_the_candidate(refused):
    refused(request(RTN, RTN | {"modules": ["q_prj"]}), E.UNKNOWN_MODULE, "/candidate/recipe/1/modules/0")
    pattern = {"type": "prune.magnitude", "pattern": "2:4", "scope": "row"}
    refused(request(RTN, pattern), E.RECIPE_NOT_APPLICABLE, "/candidate/recipe/1/scope")


# ---- text


def test_documents_are_looked_at(refused):
    asked = {"role": "user", "content": "hi there"}
    empty = [asked, {"role": "assistant", "content": "\0"}]
    for documents, code, place in (
        ([DOCUMENT, DOCUMENT], E.INVALID_REQUEST, "1/id"),
        ([DOCUMENT, {"id": "e", "text": ""}], E.DOCUMENT_TOO_SHORT, "1/text"),
        ([{"id": "e", "text": "a"}], E.DOCUMENT_TOO_SHORT, "0/text"),
        ([{"id": "n", "text": "secret\0b"}], E.DOCUMENT_NOT_TEXT, "0/text"),
        ([{"id": "n", "messages": empty}], E.DOCUMENT_NOT_TEXT, "0/messages/1/content"),
        ([DOCUMENT, {"id": "q", "messages": [asked]}], E.DOCUMENT_TOO_SHORT, "1"),
    ):
        error = refused(request(documents=documents), code, f"/text/documents/{place}")
        assert "secret" not in error.detail + error.hint


def test_documents_of_other_texts_are_looked_at_as_well(refused):
    twice = {"source": "inline", "documents": [DOCUMENT, DOCUMENT]}
    step = {"type": "quantize.gptq", "bits": 4, "calibration": twice, "calibration_window": 64}
    refused(request(step), E.INVALID_REQUEST, "/candidate/recipe/0/calibration/documents/1/id")
    refused(calibration(test_text=twice), E.INVALID_REQUEST, "/test_text/documents/1/id")


def test_a_conversation_needs_a_chat_template(refused):
    chat = [{"id": "c", "messages": [{"role": "assistant", "content": "hello"}]}]
    asked = request(reference="mute", candidate="mute", documents=chat)
    refused(asked, E.CHAT_TEMPLATE_MISSING, "/text/documents/0/messages")


def test_files_are_looked_for_below_the_root(refused, text_root, settings):
    (text_root / "out").symlink_to(text_root.parent)
    (text_root / "dangling.txt").symlink_to(text_root / "nothing.txt")
    for path, code in (
        ("../models.toml", E.PATH_FORBIDDEN),
        ("out", E.PATH_FORBIDDEN),
        ("none.txt", E.TEXT_NOT_FOUND),
        ("empty", E.TEXT_NOT_FOUND),
        ("dangling.txt", E.TEXT_NOT_FOUND),
        ("notes.md", E.DOCUMENT_NOT_TEXT),
    ):
        refused(request(text={"source": "file", "path": path}), code, "/text/path")
    (text_root / "many/link.txt").symlink_to(text_root.parent / "models.toml")
    refused(request(text={"source": "file", "path": "many"}), E.PATH_FORBIDDEN, "/text/path")
    bare = settings.model_copy(update={"text_root": None})
    refused(request(text={"source": "file", "path": "one.txt"}), E.PATH_FORBIDDEN, "/text/path", settings=bare)


def sweep(step, knob, **fields):
    body = {
        "kind": "sweep",
        "reference": {"model": "llama"},
        "candidate": {"model": "llama", "recipe": [step]},
        "text": {"source": "inline", "documents": [DOCUMENT]},
        "knobs": [{"step": 0} | knob],
    }
    return SweepRequest.model_validate(body | fields)


def test_the_window_of_a_context_sweep_is_held_against_its_values(alone, settings):
    """The recipe's own factor is a placeholder, and too small for the window."""
    step = {"type": "context.yarn", "factor": 2}
    check_request(sweep(step, {"field": "factor", "values": [4, 8]}, window=1024), alone, settings)
    error = rejection(sweep(step, {"field": "factor", "values": [3, 8]}, window=1024), alone, settings)
    assert error.code is E.WINDOW_TOO_LARGE
    assert "at factor = 3" in error.detail


def test_the_test_of_a_calibration_is_the_evaluation_text_unless_another_is_given():
    assert calibration().tested.corpus == "evaluation"
    assert calibration(text={"source": "shipped"}).tested is None
    own = {"source": "inline", "documents": [{"id": "a", "text": "one two three"}]}
    assert calibration(test_text=own).tested is not None
