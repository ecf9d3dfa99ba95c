"""Compare jobs of checkpoints that are stored in different dtypes, with a real engine on a tiny model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.settings import Settings
from tests.integration.workers.diagnosis.mitigate.test_job import Context
from tests.integration.workers.diagnosis.test_compare_classes import request, words
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom

DOCUMENTS = [{"id": f"d{number}", "text": words(number, 40)} for number in range(6)]


@pytest.fixture(scope="module")
def folders(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model with float32 weights that bfloat16 cannot hold, and the same rounded to bfloat16."""
    source, found = tiny("llama"), {}
    generator = torch.Generator().manual_seed(1)
    wide = {
        name: tensor.float() * (1 + torch.rand(tensor.shape, generator=generator) / 256)
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    for name, dtype in (("wide", torch.float32), ("narrow", torch.bfloat16)):
        found[name] = tmp_path_factory.mktemp("models") / name
        shutil.copytree(source, found[name])
        tensors = {key: tensor.to(dtype) for key, tensor in wide.items()}
        save_file(tensors, found[name] / "model.safetensors", metadata={"format": "pt"})
    return found


@pytest.fixture(scope="module")
def settings(folders: dict[str, Path], home_of: Callable[..., Settings]) -> Settings:
    made = home_of({})
    tables = [
        f'[models.{name}{suffix}]\npath = "{path}"\ndtype = "{dtype}"\n'
        for name, path in folders.items()
        for suffix, dtype in (("", "bfloat16"), ("-exact", "float32"))
    ]
    (made.home / "models.toml").write_text("".join(tables))
    return made


def test_an_engine_that_rounds_both_alike_finds_nothing_and_says_why(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    asked = request(DOCUMENTS, reference={"model": "wide"}, candidate={"model": "narrow"})
    report = compare(asked, Context(settings, tmp_path), room)
    assert report.divergence.kl.mean == pytest.approx(0, abs=1e-6)
    assert report.kernel_term is None
    assert any(told.code == "rounded_weights" and told.facts["model"] == "wide" for told in report.warnings)


def test_in_float32_what_rounding_costs_is_measured_the_head_s_included(
    settings: Settings, room: EngineRoom, folders: dict[str, Path], tmp_path: Path
) -> None:
    context = Context(settings, tmp_path)
    asked = request(DOCUMENTS, reference={"model": "wide-exact"}, candidate={"model": "narrow-exact"})
    report = compare(asked, context, room)
    assert not any(told.code == "rounded_weights" for told in report.warnings)
    tokenizer = AutoTokenizer.from_pretrained(folders["wide"])
    models = [AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float64) for name in ("wide", "narrow")]
    expected = []
    for document in DOCUMENTS:
        ids = tokenizer(document["text"], add_special_tokens=False, return_tensors="pt").input_ids
        for window in torch.split(ids, 64, dim=1):
            if window.shape[1] < 2:
                continue
            with torch.no_grad():
                p, q = (model(window).logits[0, :-1].log_softmax(dim=-1) for model in models)
            expected += (p.exp() * (p - q)).sum(dim=-1).tolist()
    rows = pq.read_table(context.output / "tokens.parquet").to_pydict()
    assert len(rows["kl"]) == len(expected)
    mean = sum(expected) / len(expected)
    assert mean > 1e-6
    assert report.divergence.kl.mean == pytest.approx(mean, rel=0.02)
