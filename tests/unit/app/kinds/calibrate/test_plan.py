"""What is refused of block corrections before a job is queued."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.contracts.blocks import SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.calibrate.calibrators import walks
from app.kinds.calibrate.plan import check, cost, to_fit
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.estimates import Cost
from app.models.checkpoint import inspect
from app.models.pace import TOKENS_PER_SECOND, TRAINED, Pace
from app.models.registry import Registry
from app.settings import Settings

BODY = {"kind": "calibrate", "reference": {"model": "a"}, "candidate": {"model": "b"}, "calibrators": ["blocks"]}


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama"))


def checked(reference, candidate, **settings):
    return SimpleNamespace(reference=reference, candidate=candidate, settings=Settings(**settings))


def test_blocks_need_a_known_architecture_of_one_size_and_an_engine_that_does_no_more(info):
    request = CalibrateRequest.model_validate(BODY)
    check(request, checked(info, info))
    for other in (
        replace(info, architecture="OtherForCausalLM"),
        replace(info, layers=info.layers + 1),
        replace(info, hidden_size=2 * info.hidden_size),
        replace(info, config=info.config | {SECTION: {}}),
    ):
        with pytest.raises(HemostatError) as caught:
            check(request, checked(info, other))
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.CHECKPOINT_UNSUPPORTED, "/calibrators")
        check(CalibrateRequest.model_validate(BODY | {"calibrators": ["lowrank"]}), checked(info, other))
    with pytest.raises(HemostatError, match="compiled"):
        check(request, checked(info, info, engine_compile=True))


def test_without_a_list_blocks_are_fitted_if_they_can_be(info):
    request = CalibrateRequest.model_validate(BODY | {"calibrators": None})
    deeper = replace(info, layers=info.layers + 1)
    assert walks(to_fit(request, info, info, compiled=False))
    assert not walks(to_fit(request, info, info, compiled=True))
    assert not walks(to_fit(request, info, deeper, compiled=False))
    check(request, checked(info, deeper))


@pytest.mark.parametrize(
    "text",
    [
        {"source": "shipped", "corpus": "calibration"},
        {"source": "inline", "documents": [{"id": "1", "domain": "prose", "text": "two words"}]},
    ],
    ids=lambda text: text["source"],
)
def test_a_domain_to_fit_on_is_one_of_the_text(info, text):
    body = BODY | {"calibrators": ["lowrank"], "text": text}
    check(CalibrateRequest.model_validate(body | {"fit_domains": ["prose"]}), checked(info, info))
    with pytest.raises(HemostatError, match=r"it has .*prose") as caught:
        check(CalibrateRequest.model_validate(body | {"fit_domains": ["verse"]}), checked(info, info))
    assert caught.value.pointer == "/fit_domains"


def test_refining_costs_its_steps_forward_and_backward(info):
    def seconds(steps, **changes):
        whole = Cost(Registry(Path(), {}), Settings(), Pace(TOKENS_PER_SECOND, "here"), info, info, 8, 4096)
        cost(CalibrateRequest.model_validate(BODY | {"refine_steps": steps} | changes), whole)
        return whole.seconds

    assert seconds(100) - seconds(0) == pytest.approx(102_400 * info.parameters / TRAINED["bf16"].per_second)
    whole = seconds(100, window=2048) - seconds(0, window=2048)
    assert whole == pytest.approx(204_800 * info.parameters / TRAINED["bf16"].per_second), "a step is one window"


def test_steps_that_would_refine_nothing_are_refused(info):
    body = BODY | {"calibrators": ["lowrank"], "refine_steps": 5}
    with pytest.raises(HemostatError, match="refines blocks") as caught:
        check(CalibrateRequest.model_validate(body), checked(info, info))
    assert caught.value.pointer == "/refine_steps"


@pytest.mark.parametrize("field", ["text", "test_text"])
def test_nothing_is_written_for_the_fit_beside_text_that_the_reference_writes(field):
    """The same seed writes the same text: it would be fitted and decide."""
    assert CalibrateRequest.model_validate(BODY).written > 0
    assert CalibrateRequest.model_validate(BODY | {field: {"source": "self"}}).written == 0
