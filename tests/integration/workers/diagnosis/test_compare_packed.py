"""Compare jobs of packed candidates whose weights are not unpacked here, with a real engine on a tiny model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from tests.integration.workers.diagnosis.mitigate.test_job import Context
from tests.integration.workers.diagnosis.test_compare_classes import request, words
from tests.support.copies import edit_json
from tests.support.packed import make_packed
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom

DOCUMENTS = [{"id": f"d{number}", "text": words(number, 40)} for number in range(6)]
FORMAT = "nvfp4-pack-quantized"


@pytest.fixture(scope="module")
def settings(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, home_of: Callable[..., Settings]
) -> Settings:
    """`packed`: 8-bit weights that vLLM serves here, by their configuration in a format that is not unpacked."""
    models = tmp_path_factory.mktemp("models")
    plain = tiny("llama")
    folders = {"plain": plain, "floats": make_packed(plain, models / "floats", "MXFP4")}
    for alias in ("known", "packed"):
        folders[alias] = make_packed(plain, models / alias, "W8A8")
    file = folders["packed"] / "config.json"
    quantization = json.loads(file.read_text())["quantization_config"] | {"format": FORMAT}
    for group in quantization["config_groups"].values():
        group["format"] = FORMAT
    edit_json(file, quantization_config=quantization)
    return home_of(folders)


def test_a_format_that_is_not_unpacked_is_measured_without_the_kernel_term(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    reports = {
        alias: compare(
            request(DOCUMENTS, reference={"model": "plain"}, candidate={"model": alias}),
            Context(settings, tmp_path / alias),
            room,
        )
        for alias in ("known", "packed")
    }
    assert reports["packed"].divergence == reports["known"].divergence
    assert reports["known"].kernel_term is not None
    assert not any(warning.code == "unknown_kernel_term" for warning in reports["known"].warnings)
    assert reports["packed"].kernel_term is None
    assert any(
        FORMAT in warning.text and warning.code == "unknown_kernel_term" for warning in reports["packed"].warnings
    )


def test_what_vllm_has_no_kernel_for_is_refused_before_the_reference_is_scored(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    starts = room.pool.starts
    asked = request(DOCUMENTS, reference={"model": "plain"}, candidate={"model": "floats"})
    with pytest.raises(HemostatError, match="NVFP4, MXFP4") as caught:
        compare(asked, Context(settings, tmp_path), room)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model")
    assert room.pool.starts == starts
