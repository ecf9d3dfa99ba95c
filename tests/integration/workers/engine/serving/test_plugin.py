import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from workers.engine.isolation import quiet_vllm
from workers.engine.serving.plugin import keep_requests_out_of_the_log

with quiet_vllm():
    from vllm import SamplingParams
    from vllm.logging_utils.dump_input import dump_engine_exception
    from vllm.v1.core.sched.output import NewRequestData


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger, handler = logging.getLogger("vllm.logging_utils.dump_input"), Kept()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.disabled = False


def test_what_an_engine_was_computing_when_it_died_is_not_written_down(kept: Kept) -> None:
    request = NewRequestData(
        req_id="r",
        prompt_token_ids=[1],
        mm_features=[],
        sampling_params=SamplingParams(stop=["the secret"]),
        pooling_params=None,
        block_ids=([0],),
        num_computed_tokens=0,
        lora_request=None,
    )
    batch = SimpleNamespace(scheduled_new_reqs=[request])
    dump_engine_exception(None, batch, None)
    assert any("the secret" in line for line in kept.lines)  # what vLLM does by itself
    kept.lines.clear()
    keep_requests_out_of_the_log()
    dump_engine_exception(None, batch, None)
    assert kept.lines == []
