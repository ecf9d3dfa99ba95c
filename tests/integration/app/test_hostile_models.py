"""The API as a process, asked about models whose files were made to do it harm: each is refused, nobody waits."""

import json
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.integration.app.conftest import Server, compare
from tests.support.copies import copier, edit_json

JOBS = "/v1/diagnosis/jobs"
HOSTILE = "re:(([a-z0-9._])+)+!"
W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int"},
            "input_activations": {"num_bits": 8, "type": "int", "dynamic": True},
        }
    },
}


def patterned(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config=W8A8 | {"ignore": [HOSTILE]})


def backtracking(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config=W8A8 | {"ignore": [r"re:(?=(.+)+!).*"]})


def layered(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=200_000)


def deeper(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=10**9)


def headed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10**8) + b"{" * 10**8)


def configured(folder: Path) -> None:
    os.truncate(folder / "config.json", 10**9)


def nested(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 4_000_000)


def listed(folder: Path) -> None:
    """As many lists as a tokenizer's file has room for: more memory than is allowed, or as long as that takes."""
    (folder / "tokenizer.json").write_text("[" + "[[]]," * (12 * 1024**2) + "0]")


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pattern": (patterned, ""),  # legal, and matched in linear time
    "look_ahead": (backtracking, "checkpoint_unsupported"),
    "layers_200000": (layered, "checkpoint_shape_mismatch"),
    "layers_1e9": (deeper, "checkpoint_shape_mismatch"),
    "header_100mb": (headed, "checkpoint_corrupt"),
    "config_1gb": (configured, "checkpoint_corrupt"),
    "nesting": (nested, "checkpoint_corrupt"),
    "tokenizer_of_lists": (listed, "checkpoint_unsupported"),
}


@pytest.fixture
def models(settings: Settings, tiny: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """`models(alias)`: a copy of the tiny model under that alias."""
    copy = copier(tiny, tmp_path)

    def add(alias: str) -> Path:
        folder = copy("llama", name=alias)
        with settings.models_file.open("a") as stream:
            stream.write(f"[models.{alias}]\npath = {json.dumps(str(folder))}\n")
        return folder

    return add


def ask(server: Server, alias: str) -> httpx.Response:
    body = compare(candidate={"model": alias}, dry_run=True)
    return httpx.post(f"{server.url}{JOBS}", json=body, timeout=120)


def test_hostile_files_are_refused_and_the_next_request_is_answered(
    server: Server, models: Callable[[str], Path]
) -> None:
    for case, (change, _) in CASES.items():
        change(models(case))
    models("sound")
    server.start()
    for case, (_, code) in CASES.items():
        answer = ask(server, case)
        assert answer.status_code == (422 if code else 200), (case, answer.text)
        if code:
            assert (answer.json()["code"], bool(answer.json()["detail"])) == (code, True)
        assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
    assert ask(server, "sound").status_code == 200


def test_others_are_answered_while_a_hostile_file_is_looked_into(server: Server, models: Callable[[str], Path]) -> None:
    listed(models("hostile"))
    models("sound")
    server.start()
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(ask(server, "hostile")))
    asking.start()
    answered = 0
    while asking.is_alive():
        assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
        assert ask(server, "sound").status_code == 200
        answered += 1
    assert answered
    assert found[0].json()["code"] == "checkpoint_unsupported"
