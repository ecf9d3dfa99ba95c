"""What a client is told of an answer, and when it is counted."""

from typing import Any, cast

import pytest

from tests.support.tiny import make_tokenizer
from workers.calibration.verified.requests import RequestQueue, Ticket
from workers.calibration.verified.text import TextStream
from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream, Verifier


class Told(Ticket):
    """A ticket whose lines are kept in the order of what happens."""

    def tell(self, line: dict[str, Any]) -> None:
        HAPPENED.append(line)


HAPPENED: list[object] = []


@pytest.mark.parametrize("tokens", [[5, 6, 0], [0]])
def test_an_answer_is_counted_before_its_end_is_told(tokens: list[int]) -> None:
    """A client that looks at the metrics when it has the last line finds its request there."""
    HAPPENED.clear()
    tokenizer = make_tokenizer().backend_tokenizer
    stream = Stream([1], Sampling(), 10, frozenset({0}))
    queue = RequestQueue(cast(Verifier, None), tokenizer, stops=frozenset({0}), running=1, waiting=1)
    queue.on_finish = HAPPENED.append
    ticket = Told(stream, TextStream(tokenizer, []), cast(Any, None), cast(Any, None))
    queue._advance(ticket, stream.take(tokens))
    assert HAPPENED[-2] is stream
    last = cast(dict[str, Any], HAPPENED[-1])
    assert (last["finish_reason"], last["usage"]["completion_tokens"]) == ("stop", len(tokens))
    assert HAPPENED.count(stream) == 1
