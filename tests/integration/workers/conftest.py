"""One engine room for all jobs that the tests run in this process; homes are cheap, engines are not."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from app.settings import Settings
from tests.support.attempts import Context
from tests.support.tiny_jobs import Jobs
from workers.engine.pool import EnginePool
from workers.engine.room import EngineRoom

ENGINES: Final[dict[str, Any]] = {"engine_batch_tokens": 512, "engine_kv_cache_bytes": 16 * 1024 * 1024}


@pytest.fixture(scope="session")
def engine_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the shared engines."""
    return Settings(home=tmp_path_factory.mktemp("home"), **ENGINES)


@pytest.fixture(scope="session")
def room(engine_settings: Settings) -> Iterator[EngineRoom]:
    """Warm engines for tiny models; a test that counts `starts` subtracts those before it."""
    made = EngineRoom(engine_settings)
    yield made
    made.close()


@pytest.fixture(scope="session")
def pool(room: EngineRoom) -> EnginePool:
    """The engines of `room`."""
    return room.pool


@pytest.fixture(scope="session")
def home_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """`home_of({alias: folder}, **changes)`: settings of a new home whose models.toml names these folders."""

    def make(models: Mapping[str, Path], **changes: Any) -> Settings:
        home = tmp_path_factory.mktemp("home")
        tables = (f'[models.{alias}]\npath = "{folder}"\n' for alias, folder in models.items())
        (home / "models.toml").write_text("".join(tables))
        return Settings(home=home, **(ENGINES | changes))

    return make


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    """A home of the module; a module that needs other models has its own."""
    return home_of({"tiny": tiny("llama"), "other": tiny("llama", seed=1)})


@pytest.fixture
def jobs(settings: Settings, room: EngineRoom, tmp_path: Path) -> Jobs:
    """Jobs of one test."""
    return Jobs(settings, room, tmp_path)


@pytest.fixture(scope="module")
def module_jobs(settings: Settings, room: EngineRoom, tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """For the attempt that a module's `report` fixture makes."""
    return Jobs(settings, room, tmp_path_factory.mktemp("job"))


@pytest.fixture
def context(report: Any, module_jobs: Jobs) -> Context:
    """The context of the module's report."""
    return module_jobs.context
