"""What vLLM's processes are told at their start."""

from pathlib import Path

import pytest

from workers.engine.serving import plugin
from workers.engine.serving.config import VARIABLE, ServingConfig


@pytest.mark.parametrize(("apart", "float32"), [(True, True), (False, True), (False, False)])
def test_a_server_is_registered_as_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool, float32: bool
) -> None:
    config = ServingConfig(
        deployment="tiny",
        architecture="LlamaForCausalLM",
        single_rows_apart=apart,
        float32_products=float32,
        profiles=tmp_path,
        versions_file=tmp_path / "versions.json",
        hidden=tmp_path,
        door_file=tmp_path / "door",
    )
    (tmp_path / "serving.json").write_text(config.model_dump_json())
    monkeypatch.setenv(VARIABLE, str(tmp_path / "serving.json"))
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    monkeypatch.setattr(plugin, "end_with_parent", lambda: None)
    monkeypatch.setattr(plugin, "keep_requests_out_of_the_log", lambda: None)
    told: list[tuple[str, bool, bool]] = []
    monkeypatch.setattr(
        plugin,
        "register_model",
        lambda architecture, *, single_rows_apart, float32_products: told.append(
            (architecture, single_rows_apart, float32_products)
        ),
    )
    plugin.register()
    assert told == [("LlamaForCausalLM", apart, float32)]


def test_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(plugin, "register_model", lambda *_, **__: pytest.fail("not a server of ours"))
    plugin.register()
