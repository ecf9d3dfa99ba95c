"""The process that looks into strangers' files, its limits, and that the next one is asked after it met one."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.estimates import estimate
from app.models import looking
from app.models.checkpoint import fingerprint
from app.models.pace import Pace
from app.models.registry import load_registry
from app.settings import Settings
from tests.support.copies import edit_json

# 50 MB each, within what a tokenizer may have: the shortest lists take memory, long numbers take time.
HEAVY = "[" + "[[]]," * (10 * 1024**2) + "0]"
LONG = "[" + "1.7976931348623158079372897140530341507993e308," * 1_100_000 + "0]"


@pytest.fixture
def settings(tiny, copy, tmp_path):
    heavy = copy("llama", name="heavy")
    folders = {"sound": tiny(), "heavy": heavy, "broken": copy("llama", name="broken")}
    (folders["broken"] / "tokenizer.json").unlink()
    text = "".join(f"[models.{alias}]\npath = {json.dumps(str(path))}\n" for alias, path in folders.items())
    (tmp_path / "models.toml").write_text(text)
    return Settings(home=tmp_path, redis_url="redis://:secret@localhost/0")


@pytest.fixture(autouse=True, scope="module")
def _ended():
    yield
    looking._end_all()


def asked(model, **changes):
    body = {
        "kind": "compare",
        "reference": {"model": model},
        "candidate": {"model": model},
        "window": 64,
        "self_check": True,
    }
    return CompareRequest.model_validate(body | changes)


async def refused(model, settings):
    with pytest.raises(HemostatError) as caught:
        await looking.check(asked(model), settings, "")
    assert caught.value.hint
    return caught.value


async def test_it_answers_as_this_process_would(settings):
    registry, here = load_registry(settings.models_file), Pace(100.0, "as told")
    await looking.check(asked("sound"), settings, "")
    told = await looking.estimate(asked("sound"), settings, "", here)
    assert told == estimate(asked("sound"), registry, settings, here)
    error = await refused("broken", settings)
    with pytest.raises(HemostatError) as caught:
        estimate(asked("broken"), registry, settings)
    other = caught.value
    assert (error.code, error.detail, error.hint, error.pointer) == (
        other.code, other.detail, other.hint, other.pointer
    )  # fmt: skip
    folder = registry.resolve("sound").checkpoint_path()
    assert looking.weights_of(folder) == fingerprint(folder)


async def test_one_process_answers_until_it_meets_a_limit(settings):
    looking._end_all()
    await looking.check(asked("sound"), settings, "")
    (first,) = looking._idle
    await looking.check(asked("sound"), settings, "")
    assert looking._idle == [first]


@pytest.mark.parametrize(
    ("limit", "value", "told"), [("CPU_S", 1, "1 s of a processor"), ("LONGEST_S", 0.1, "0 s"), (None, 0, "of memory")]
)
async def test_a_limit_is_a_refusal_and_the_next_question_is_answered(settings, monkeypatch, limit, value, told):
    folder = load_registry(settings.models_file).resolve("heavy").checkpoint_path()
    await looking.check(asked("sound"), settings, "")
    (folder / "tokenizer.json").write_text(LONG if limit == "CPU_S" else HEAVY)
    with monkeypatch.context() as patch:
        if limit is not None:
            patch.setattr(looking, limit, value)
        error = await refused("heavy", settings)
    assert error.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    assert told in error.detail, error.detail
    assert "heavy" in error.detail
    await looking.check(asked("sound"), settings, "")


def test_it_knows_no_secret(settings, monkeypatch):
    looking._end_all()
    monkeypatch.setenv("HF_TOKEN", "hidden")
    looking.ask_about("check", asked("sound"), settings)
    (helper,) = looking._idle
    environment = Path(f"/proc/{helper._process.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"hidden" not in environment


@pytest.mark.parametrize(
    "changes", [{"hidden_act": "x" * 3_000_000}, {"quantization_config": {"quant_method": "x" * 3_000_000}}]
)
async def test_what_a_file_says_does_not_make_a_refusal_long(settings, changes):
    edit_json(load_registry(settings.models_file).resolve("heavy").checkpoint_path() / "config.json", **changes)
    error = await refused("heavy", settings)
    assert "xxx" in error.detail
    assert max(map(len, (error.detail, error.hint, error.pointer))) <= 2000


async def test_a_fault_of_ours_is_not_told_as_the_file_s(settings):
    with pytest.raises(RuntimeError, match=r"KeyError at looker\.py"):
        looking._ask({"what": "check"}, "nothing")


async def test_one_owner_takes_half_of_the_turns_and_of_the_queue(settings):
    async with looking._line.place("ann"):
        waiting = [asyncio.create_task(looking.check(asked("sound"), settings, "ann")) for _ in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(HemostatError) as caught:
            await looking.check(asked("sound"), settings, "ann")
        assert (caught.value.code, bool(caught.value.retry_after_s)) == (ErrorCode.RATE_LIMITED, True)
        await looking.check(asked("sound"), settings, "bob")
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_what_it_remembers_is_read_again_after_a_change(settings):
    folder = load_registry(settings.models_file).resolve("heavy").checkpoint_path()
    await looking.check(asked("heavy"), settings, "")
    edit_json(folder / "config.json", num_hidden_layers=4)
    os.utime(folder / "config.json", ns=(1, 1))
    assert (await refused("heavy", settings)).code is ErrorCode.CHECKPOINT_INCOMPLETE
