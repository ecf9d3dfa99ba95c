import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.models.checkpoint import inspect
from workers.engine.sampling import _stream_seed, stop_tokens


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {"eos_token_id": 1}, [1]),
        ({"eos_token_id": [5, 2]}, {"eos_token_id": 1}, [1, 2, 5]),
        ({"eos_token_id": None}, {}, []),
        ({}, {"eos_token_id": 10**6}, []),  # a token that the model has not
    ],
)
def test_a_text_ends_with_any_of_the_models_end_tokens(
    tiny: Callable[..., Path],
    tmp_path: Path,
    generation: dict[str, object] | None,
    config: dict[str, object],
    expected: list[int],
) -> None:
    info = replace(inspect(tiny("llama")), path=tmp_path, config=config)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert stop_tokens(info) == expected


def test_streams_have_seeds_of_their_own_that_every_engine_takes() -> None:
    seeds = {_stream_seed(seed, index) for seed in range(20) for index in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
