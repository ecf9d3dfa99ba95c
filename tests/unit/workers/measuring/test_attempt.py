from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from app.models.checkpoint import inspect
from app.models.registry import load_registry
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.tiny_jobs import RTN3, body, document, validated
from workers.measuring.attempt import Attempt
from workers.measuring.sides import Side


def test_the_candidate_is_made_where_the_pool_lets_steps_compute(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """A GPU on which vLLM replaces torch's operators is as good as none."""
    folder = tiny()
    (tmp_path / "models.toml").write_text(f'[models.tiny]\npath = "{folder}"\n')
    settings, info = Settings(home=tmp_path), inspect(folder)
    request = validated(body("compare", [RTN3], [document(0)]))
    pool = SimpleNamespace(device="none", steps_device="cpu", make_room_for_steps=lambda *_: None)
    room: Any = SimpleNamespace(pool=pool, run_as=lambda _: None)
    attempt = Attempt(request, cast("Any", Context(settings, tmp_path / "job")), room)
    entry, reference = load_registry(settings.models_file).resolve("tiny"), Side("tiny", info, "0", info.path)
    with attempt._made(request, reference, entry, info, cast("Any", None)).modified as modified:
        assert [kind for step in modified.manifest.steps for kind in step.types] == ["quantize.rtn"]
