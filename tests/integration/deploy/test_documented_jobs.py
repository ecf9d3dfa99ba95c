"""Each job that a page asks for, by a command or by HTTP, is taken: checked and estimated, and not run.

The models are the demo model under its own name, and tiny ones under the other names.
"""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from app.cli import measuring
from app.cli.main import app
from app.jobs.parsing import parse_submission
from app.models import looking
from app.settings import Settings
from deploy import documentation, documented_commands
from tests.support.ports import free_port

Json = dict[str, Any]
HUB_ID = "meta-llama/Llama-3.1-8B-Instruct"
TINY = {  # and their seeds
    "llama-8b": 0,
    "llama-8b-w4a16": 1,
    "llama-3.1-8b": 0,
    "llama-3.1-8b-w4a16": 1,
    "base": 0,
    "candidate": 1,
}
QUESTION = {"question": "What is 1 + 1?", "answer": "It is 2. #### 2"}
TASKS = {
    "hellaswag_val.jsonl": {
        "activity_label": "Lamp",
        "ctx_a": "The lamp",
        "ctx_b": "goes",
        "ctx": "The lamp goes",
        "endings": ["out.", "in.", "up.", "down."],
        "label": 0,
    },
    "gsm8k_test.jsonl": QUESTION,
    "gsm8k_train.jsonl": QUESTION,
}
ROWS = 500  # of a task: what a page asks for
WHERE = "/srv/models/"  # of the reader's checkpoints


def lines() -> Iterator[str]:
    """What follows `hemostat` where a page asks for a job."""
    for page in documentation.pages():
        blocks = [line for _, block in page.blocks for line in documented_commands.in_block(block)]
        for line in [*blocks, *documented_commands.inline(page.prose)]:
            # What it refuses is a fault of the page, or an exception of documentation.toml.
            if documented_commands.submits(line) and not list(documented_commands.refused(line)):
                yield line


def submissions() -> Iterator[str]:
    """Bodies of requests for a job."""
    for page in documentation.pages():
        for body in documentation.bodies(page):
            if '"kind"' in body:
                yield body


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Path], smollm2: Path) -> Path:
    """Where a reader works: a home, checkpoints, a hub cache, an adapter, a recipe, a text and tasks."""
    made = tmp_path_factory.mktemp("reader")
    for name, seed in TINY.items():
        shutil.copytree(tiny("llama", max_position_embeddings=1024, seed=seed), made / name)
    commit = "0" * 39 + "1"
    repository = made / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(made / "llama-3.1-8b", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    places = {name: made / name for name in TINY} | {"smollm2-135m": smollm2, "my-model": smollm2}
    (made / "home").mkdir()
    aliases = "".join(f'[models."{name}"]\npath = "{path}"\n' for name, path in places.items())
    (made / "home/models.toml").write_text(aliases)
    write_adapter(made / "adapters/my-adapter")
    for recipe in (made / "recipe.json", made / "found/recipe.json"):
        recipe.parent.mkdir(exist_ok=True)
        recipe.write_text('[{"type": "quantize.rtn", "bits": 4}]')
    (made / "my.jsonl").write_text('{"id": "1", "text": "The lamp went out at nine."}\n')
    for name, row in TASKS.items():
        (made / name).write_text(f"{json.dumps(row)}\n" * ROWS)
    return made


def write_adapter(folder: Path) -> None:
    """A LoRA of rank 1 on one weight of the demo model, which is 576 wide."""
    folder.mkdir(parents=True)
    weight = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{weight}.lora_A.weight": torch.ones(1, 576), f"{weight}.lora_B.weight": torch.ones(576, 1)}
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEMOSTAT_HOME", str(folder / "home"))
    monkeypatch.setenv("HEMOSTAT_ADAPTER_ROOT", str(folder / "adapters"))
    monkeypatch.setenv("HEMOSTAT_TEXT_ROOT", str(folder))
    monkeypatch.setenv("HEMOSTAT_PORT", str(free_port()))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    return Settings()


def estimate(settings: Settings, body: bytes) -> Json:
    """What a service answers to a dry run while no worker lives."""
    found: Json = looking.ask_about("estimate", parse_submission(body), settings, pace=None)
    return found


class Service:
    """A service without HTTP."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def submit(self, request: Json) -> Json:
        assert request["dry_run"]
        return estimate(self.settings, json.dumps(request).encode())


@pytest.mark.parametrize("line", dict.fromkeys(lines()))
def test_a_command_is_taken(line: str, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connected(*_: object) -> Iterator[Service]:
        yield Service(settings)

    monkeypatch.setattr(measuring, "connect_or_start", connected)
    monkeypatch.setenv("CANDIDATE", str(folder / "candidate"))
    given = documented_commands.arguments_of(os.path.expandvars(line).replace(WHERE, f"{folder}/"))
    done = CliRunner().invoke(app, [*given, "--dry-run", "--json"])
    assert done.exit_code == 0, f"{shlex.join(given)}\n{done.output}{done.exception}"
    assert json.loads(done.stdout)["seconds"] > 0


@pytest.mark.parametrize("body", dict.fromkeys(submissions()))
def test_a_body_is_taken(body: str, settings: Settings) -> None:
    assert estimate(settings, body.encode())["seconds"] > 0
