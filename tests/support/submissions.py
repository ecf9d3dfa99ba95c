"""Bodies of jobs that are not accepted."""

import json
from typing import Any

import pytest

from app.contracts.errors import HemostatError
from app.jobs.parsing import parse_submission


def refused(body: dict[str, Any] | bytes) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        parse_submission(body if isinstance(body, bytes) else json.dumps(body).encode())
    return caught.value
