"""A home with the tiny model as `tiny`, and an engine room for the tests of one file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from workers.engine.room import EngineRoom


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    (home / "models.toml").write_text(f'[models.tiny]\npath = "{tiny("llama")}"\n')
    return Settings(home=home, engine_batch_tokens=512, engine_kv_cache_bytes=16 * 1024 * 1024)


@pytest.fixture(scope="module")
def room(settings: Settings) -> Iterator[EngineRoom]:
    made = EngineRoom(settings)
    yield made
    made.close()
