"""The tests for a GPU, as `make test-gpu` runs them, on the processor: without a GPU they are known to work."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "Makefile").read_text().partition("\ntest-gpu:")[2].partition("\n\n")[0]
COMMANDS = re.findall(r"-m pytest (.+)", RECIPE)
# What the first of them needs of packages is torch and transformers alone.
WITHOUT_VLLM = COMMANDS[0]
SKIPPED = {"a processor has no batch-invariant mode"}


def test_each_test_for_a_gpu_is_run_once() -> None:
    files = [word for command in COMMANDS for word in command.split() if word.startswith("tests/")]
    assert sorted(files) == sorted(str(file.relative_to(ROOT)) for file in (ROOT / "tests/gpu").glob("test_*.py"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.timeout(1800)
def test_the_tests_for_a_gpu_pass_on_a_processor(command: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "HEMOSTAT_TEST_DEVICE": "cpu",
        "HEMOSTAT_TEST_DURATIONS": str(tmp_path / "durations.json"),
    }
    if command == WITHOUT_VLLM:
        (tmp_path / "vllm.py").write_text("raise ImportError('these tests need no vLLM')\n")
        environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.findall(r"^SKIPPED \[\d+\] \S+ (.+)$", done.stdout, flags=re.MULTILINE)
    assert set(skipped) <= SKIPPED
    assert skipped or re.search(r"\d+ passed", done.stdout)
