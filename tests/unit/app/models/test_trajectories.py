"""What of a trajectory job is refused before it is queued."""

from types import MappingProxyType

import pytest

from app.contracts.decoding import defaults, runs_in_vllm
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Document
from app.kinds.preflight import check_request
from app.kinds.trajectory.plan import spread_over_domains
from app.kinds.trajectory.request import TrajectoryRequest
from app.settings import Settings
from tests.support.asked import registry_of
from tests.support.refusals import refused

USER, ASSISTANT = {"role": "user", "content": "the dog"}, {"role": "assistant", "content": "the fox"}


def document(name, *messages, domain="chat"):
    return {"id": name, "domain": domain, "messages": list(messages)}


@pytest.fixture
def check(tiny, tmp_path):
    registry = registry_of(tmp_path / "models.toml", {"m": tiny()})

    def checked(*documents, sizes=MappingProxyType({}), **fields):
        body = {
            "kind": "trajectory",
            "reference": {"model": "m"},
            "candidate": {"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
            "text": {"source": "inline", "documents": documents},
            "tokens": 16,
        }
        request = TrajectoryRequest.model_validate(body | fields)
        check_request(request, registry, Settings(home=tmp_path / "home", **sizes))

    return checked


def test_domains_take_turns():
    documents = [Document(id=f"{domain}{i}", domain=domain, text="the dog") for i, domain in enumerate("aaaaaabbb")]
    assert [one.id for one in spread_over_domains(documents, 5)] == ["a0", "b6", "a1", "b7", "a2"]
    assert len(spread_over_domains(documents, 100)) == 9


BLANK = {"role": "user", "content": " \n"}


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([ASSISTANT, USER, ASSISTANT], "0/role"),
        ([{"role": "user", "content": ""}, ASSISTANT], "0/content"),
        ([BLANK], "0/content"),
        ([{"role": "system", "content": ""}, {"role": "user", "content": ""}, ASSISTANT, USER], "1/content"),
    ],
)
def test_a_conversation_that_says_nothing_before_its_first_answer_is_refused_at_that_message(check, messages, place):
    with pytest.raises(HemostatError, match="'bad'") as caught:
        check(document("good", USER, ASSISTANT), document("bad", *messages))
    at = f"/text/documents/1/messages/{place}"
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.DOCUMENT_TOO_SHORT, at)
    assert caught.value.hint


def test_a_blank_text_that_is_to_be_a_users_message_is_refused_at_its_place(check):
    good, blank = (
        {"id": name, "domain": "prose", "text": text} for name, text in (("good", "the dog"), ("bad", " \n"))
    )
    with pytest.raises(HemostatError, match="'bad' has nothing but white space") as caught:
        check(good, blank, chat=True)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.DOCUMENT_TOO_SHORT, "/text/documents/1/text")
    check(good, blank)  # its white space is what the models go on from


@pytest.mark.parametrize("size", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_split_model_is_refused_the_decoders_that_run_in_vllm(check, size):
    asked = document("a", USER)
    in_transformers = [decoder.model_dump() for decoder in defaults() if not runs_in_vllm(decoder)]
    check(asked, sizes={size: 2}, decoders=in_transformers)
    for decoder in filter(runs_in_vllm, defaults()):
        with refused(ErrorCode.INVALID_REQUEST, match=f"{decoder.name} runs in vLLM") as caught:
            check(asked, sizes={size: 2}, decoders=[in_transformers[0], decoder.model_dump()])
        assert caught.value.pointer == "/decoders/1"
        assert all(one["name"] in caught.value.hint for one in in_transformers)
