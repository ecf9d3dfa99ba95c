"""Fixtures that every tier shares: the demo model, tiny random-weight models, and signals that are put back."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine is no failure; what hangs is ended by pytest-timeout. The same examples each time: a test that fails
# once in a hundred runs tells the one whom it meets nothing. HYPOTHESIS_PROFILE=search looks for new ones.
PATIENT = [hypothesis.HealthCheck.too_slow]  # which is told by the clock
hypothesis.settings.register_profile("hemostat", deadline=None, derandomize=True, suppress_health_check=PATIENT)
hypothesis.settings.register_profile("search", deadline=None, suppress_health_check=PATIENT)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "hemostat"))

# Nothing may look for a hub, and nothing may report home.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
# A thousand processes start: each would compile the whole project before its first line.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Threads that wait must not take the cores from the processes that a test has started.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

pytest_plugins = ["tests.support.gate", "tests.support.snapshots"]

CACHE = Path(__file__).resolve().parents[1] / ".cache"
# Every test's service has a home of its own; compiling anew for each would be most of the time.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The bf16 reference checkpoint of the demo model, made once from the installed GGUF and kept in .cache."""
    from filelock import FileLock

    from workers.surgery.import_gguf import demo_gguf, import_gguf

    folder = CACHE / "smollm2-135m"
    CACHE.mkdir(exist_ok=True)
    # Unit tests run in several processes: one makes it, the others wait.
    with FileLock(CACHE / "smollm2-135m.lock"):
        if not (folder / "model.safetensors").is_file():
            import_gguf(demo_gguf(), folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny(kind, **options)`: folder of a tiny random-weight checkpoint, made once a session."""
    from tests.support.tiny import make_checkpoint

    root = tmp_path_factory.mktemp("tiny")
    made: dict[str, Path] = {}

    def make(kind: str = "llama", **options: Any) -> Path:
        key = "-".join([kind, *(f"{name}-{value}" for name, value in sorted(options.items()))])
        if key not in made:
            made[key] = make_checkpoint(root / key, kind, **options)
        return made[key]

    return make


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A library that a test calls may raise the level of all loggers: later tests would not see what is logged."""
    before = logging.root.level, logging.root.manager.disable
    yield
    logging.root.setLevel(before[0])
    logging.disable(before[1])


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """What SIGTERM and SIGINT do is put back. Ctrl-C raises meanwhile, also where a shell has it ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
