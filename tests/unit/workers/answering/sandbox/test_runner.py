"""Programs that a model might write, run for real: what they may do, and what they may not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode
from tests.support.refusals import refused
from tests.support.stopping import StoppedError, stop_after
from workers.answering.sandbox import runner
from workers.answering.sandbox.runner import PROBES, Ending, Limits, passes, require, run

QUICK = Limits(wall_s=2.0, cpu_s=1, memory_bytes=256 * 1024**2)
# For what ends by itself: on a busy machine its process may take longer than that to begin.
PATIENT = Limits(wall_s=120.0, cpu_s=60, memory_bytes=QUICK.memory_bytes)


@pytest.mark.parametrize(
    "program",
    [
        "assert sum(range(10)) == 45",
        "import math, re, itertools, collections, heapq\nassert math.gcd(12, 18) == 6",
        "from typing import List\ndef f(x: List[int]) -> int:\n    return max(x)\nassert f([1, 3]) == 3",
        "import hashlib\nassert hashlib.md5(b'a').hexdigest().startswith('0cc1')",
        "import enum, csv\nfrom datetime import datetime\nassert datetime.strptime('2020', '%Y').year == 2020",
        "import re\nassert re.match('\\d', '1')  # an escape that Python warns of",
        "assert 'ü'.encode('latin-1') == b'\\xfc'",
        "import random, time\nrandom.seed()\nassert 0 <= random.random() < 1 and time.time() > 0",
        "import sys\nassert sys.stdin.read() == ''  # nor can it read its own test",
        "print('x' * 100_000)",
    ],
)
def test_a_program_that_computes_passes(program: str) -> None:
    assert passes(program)


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "raise KeyboardInterrupt",
        "import numpy",
        "def f(): return f()\nf()",
        "import os\nos.write(3, b'passed')\nos._exit(0)",
        "import os\nos._exit(97)",
    ],
)
def test_one_that_does_not_come_to_its_end_fails(program: str) -> None:
    assert not passes(program, limits=PATIENT)


@pytest.mark.parametrize(
    ("program", "ending"),
    [
        ("assert 1 == 1", Ending("passed")),
        ("assert 1 == 2, 'a secret'", Ending("wrong")),
        ("total", Ending("error", "NameError")),
        ("def f(:", Ending("error", "SyntaxError")),
        ("class Secret(KeyError): pass\nraise Secret('text')", Ending("error", "KeyError")),
        ("import json\njson.loads('{')", Ending("error", "ValueError")),
        ("raise SystemExit", Ending("error", "SystemExit")),
        ("x = 'x' * (1 << 30)", Ending("error", "MemoryError")),
        ("while True: pass", Ending("time_limit")),
        ("import time\ntime.sleep(60)", Ending("time_limit")),
        ("import os\nos._exit(0)", Ending("stopped")),
    ],
)
def test_how_a_program_ended_is_told_without_its_own_words(program: str, ending: Ending) -> None:
    assert run(program, limits=QUICK if ending.outcome == "time_limit" else PATIENT) == ending


def test_only_known_names_are_taken_from_a_program_that_writes_where_its_process_does() -> None:
    """It may find the descriptor; neither a pass nor text of its own comes out by it."""
    forged = "import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b'!{}')\n"
    forged += "    except OSError:\n        pass\nos._exit(0)"
    for text in ("a secret", "print", ""):
        assert run(forged.format(text), limits=PATIENT) == Ending("stopped")


@pytest.mark.parametrize("what", PROBES)
def test_the_doors_are_shut(what: str) -> None:
    # By the filter, and not because something was missing; threads alone fail with an error of another kind.
    program = "".join(f"    {line}\n" for line in PROBES[what].splitlines())
    refused = "PermissionError" if what != "start a thread" else "RuntimeError"
    assert passes(f"try:\n{program}except {refused}:\n    pass\nelse:\n    raise SystemExit")


def test_sets_have_the_same_order_in_every_run() -> None:
    environment = {"PYTHONHASHSEED": "0"}
    asked = [sys.executable, "-c", "print(hash('hemostat'))"]
    seeded = subprocess.run(asked, env=environment, capture_output=True, check=True).stdout.decode()
    assert passes(f"assert hash('hemostat') == {int(seeded)}")


def test_nothing_outside_its_folder_is_touched(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    for program in (
        f"open({str(kept)!r}, 'w')",
        f"open({str(kept)!r}, 'a').write('x')",
        f"import os\nos.remove({str(kept)!r})",
        f"import os\nos.truncate({str(kept)!r}, 0)",
        f"import os\nos.chmod({str(kept)!r}, 0)",
        f"import os\nos.symlink({str(kept)!r}, {str(tmp_path / 'link')!r})",
        f"import os\nos.rmdir({str(tmp_path)!r})",
        f"open({str(kept)!r}).read()",
        f"import os\nos.stat({str(kept)!r})",
    ):
        assert not passes(program), program
    assert kept.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_environment_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMOSTAT_API_KEY", "secret")
    assert passes("import os\nassert 'HEMOSTAT_API_KEY' not in os.environ")


def test_it_stops_when_it_is_told_to() -> None:
    with pytest.raises(StoppedError):
        passes("import time\ntime.sleep(60)", check_cancelled=stop_after())


def test_no_descriptor_is_left_open() -> None:
    passes("pass")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for program in ("pass", "assert False"):
        passes(program)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_this_machine_passes_the_proof() -> None:
    require()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda program: program.startswith("def"), None),
        (lambda _: True, "could still"),
        (lambda _: False, "harmless"),
    ],
)
def test_where_a_door_is_open_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], bool], words: str | None
) -> None:
    monkeypatch.setattr(runner, "passes", lambda program, *_, **__: answer(program))
    if words is None:
        require()
        return
    with refused(ErrorCode.CODE_SANDBOX_UNAVAILABLE, match=words):
        require()
