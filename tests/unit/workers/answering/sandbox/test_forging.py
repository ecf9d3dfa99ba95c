"""Programs that set out to be counted as passed without being right. The test asks for 4 and every one returns 5."""

import pytest

from workers.answering.sandbox.runner import Check, Ending, Limits, run

PATIENT = Limits(wall_s=120.0, cpu_s=60)
CHECK = Check(
    prompt="import math\n\ndef half(x):\n    return x / 2\n\ndef f(x):\n    '''Twice x.'''\n",
    source="def check(candidate):\n    assert candidate(2) == 4\n    assert abs(half(candidate(2)) - 2) < 1e-6\n"
    "    assert math.isclose(candidate(2), 4)\n",
    name="f",
)
WRONG = "def f(x):\n    return 5\n"

FRAMES = """
import sys
def told():
    frame = sys._getframe(1)
    while frame:
        yield from frame.f_locals.values()
        yield from frame.f_globals.values()
        frame = frame.f_back
"""
WRITES = """
import os
def write():
    for number in range(256):
        for said in (b'passed', b'{"ended": true}\\n', b'{"value": 4}\\n', b'passed\\n'):
            try:
                os.write(number, said)
            except OSError:
                pass
"""

FORGERS = {
    "the verdict into every descriptor": "import os\nfor n in range(256):\n    try:\n        os.write(n, b'passed')\n"
    "    except OSError:\n        pass\nos._exit(0)\n",
    "frames": FRAMES
    + "for one in list(told()):\n    if hasattr(one, 'send'):\n        one.send(passed=True)\n"
    + WRONG,
    "frames during the call": FRAMES
    + "def f(x):\n    for one in list(told()):\n        if hasattr(one, 'send'):\n            one.send(value=True)\n"
    + "    return 5\n",
    "the garbage collector": "import gc\nfor one in gc.get_objects():\n    if hasattr(one, 'send') and "
    "hasattr(one, 'receive'):\n        one.send(verdict='passed')\n" + WRONG,
    "other processes": "import os\nfor n in range(1, 100_000, 997):\n    try:\n"
    "        open(f'/proc/{n}/fd/4', 'w').write('passed')\n    except OSError:\n        pass\n" + WRONG,
    "its own descriptors by path": "import os\nfor n in range(64):\n    try:\n"
    "        open(f'/proc/self/fd/{n}', 'w').write('passed')\n    except OSError:\n        pass\n" + WRONG,
    "a thread": WRITES
    + "import _thread\ntry:\n    _thread.start_new_thread(write, ())\nexcept RuntimeError:\n    pass\n"
    + WRONG,
    "an end with status 0": "import os\nos._exit(0)\n" + WRONG,
    "an end during the call": "import os\ndef f(x):\n    os._exit(0)\n",
    "a signal to itself": "import os, signal\nsignal.signal(signal.SIGALRM, lambda *_: os._exit(0))\n"
    "signal.raise_signal(signal.SIGALRM)\n" + WRONG,
    "a signal to its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\n" + WRONG,
    "inherited descriptors": WRITES + "write()\n" + WRONG,
    "inherited descriptors during the call": WRITES + "def f(x):\n    write()\n    return 5\n",
    "atexit": WRITES + "import atexit\natexit.register(write)\n" + WRONG,
    "an end by atexit": WRITES + "import atexit, sys\natexit.register(write)\ndef f(x):\n    sys.exit(0)\n",
    "builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = Warning\n" + WRONG,
    "modules": "import math\nmath.isclose = lambda *_, **__: True\n" + WRONG,
    "a helper of the prompt": WRONG + "def half(x):\n    return 2\n",
    "a check of its own": "def check(candidate):\n    pass\n" + WRONG,
    "an object that equals everything": "class Any:\n    def __eq__(self, other):\n        return True\n"
    "def f(x):\n    return Any()\n",
    "a number that equals everything": "class Any(int):\n    def __eq__(self, other):\n        return True\n"
    "def f(x):\n    return Any(5)\n",
    "a trace function": "import sys\nsys.settrace(lambda *_: None)\nsys.setprofile(lambda *_: None)\n" + WRONG,
    "its own memory": "import ctypes\nbuffer = (ctypes.c_char * 64).from_address(id(None))\n" + WRONG,
    "the end of an iteration": "def f(x):\n    raise StopIteration\n",
    "the name of an exception": "import os\nfor n in range(3, 64):\n    try:\n"
    '        os.write(n, b\'{"error": "passed"}\\n\')\n    except OSError:\n        pass\n' + WRONG,
}


@pytest.mark.parametrize("how", FORGERS)
def test_a_program_cannot_forge_its_verdict(how: str) -> None:
    assert run(FORGERS[how], CHECK, PATIENT).outcome != "passed"


def test_a_program_that_is_right_passes_this_test() -> None:
    assert run("def f(x):\n    return 2 * x\n", CHECK, PATIENT) == Ending("passed")
    assert run(WRONG, CHECK, PATIENT) == Ending("wrong")


def test_the_pipe_that_takes_the_verdict_is_no_descriptor_of_the_program() -> None:
    program = (
        "import os, stat\ndef f():\n    kinds = []\n    for n in range(256):\n        try:\n"
        "            kinds.append(stat.S_IFMT(os.fstat(n).st_mode))\n        except OSError:\n            pass\n"
        "    return kinds\n"
    )
    source = "import stat\ndef check(f):\n    assert stat.S_IFSOCK in f()\n    assert stat.S_IFIFO not in f()\n"
    assert run(program, Check("def f():\n", source, "f"), PATIENT) == Ending("passed")


@pytest.mark.parametrize(
    "value",
    ["None", "[1, (2, 3)]", "{'a': {1, 2}, 3: [4.5]}", "frozenset({'x'})", "b'ab'", "1j", "float('inf')", "True",
     "10**5000", "'\\ud800'", "[]"],
)  # fmt: skip
def test_what_a_function_takes_and_returns_keeps_its_type(value: str) -> None:
    source = f"def check(f):\n    given = {value}\n    back = f(given)\n    assert back == given, back\n"
    source += "    assert type(back) is type(given)\n"
    assert run("def f(x):\n    return x\n", Check("def f(x):\n", source, "f"), PATIENT) == Ending("passed")


def test_subclasses_of_plain_data_become_plain_data() -> None:
    program = "from collections import Counter, namedtuple\nP = namedtuple('P', 'x y')\n"
    program += "def f():\n    return [Counter('aab'), P(1, 2)]\n"
    source = "def check(f):\n    assert f() == [{'a': 2, 'b': 1}, (1, 2)]\n    assert type(f()[0]) is dict\n"
    assert run(program, Check("def f():\n", source, "f"), PATIENT) == Ending("passed")


def test_a_test_sees_the_exceptions_of_the_program() -> None:
    source = "def check(f):\n    try:\n        f('a')\n    except ValueError:\n        return\n    assert False\n"
    assert run("def f(x):\n    return int(x)\n", Check("def f(x):\n", source, "f"), PATIENT) == Ending("passed")


def test_a_program_without_the_function_is_an_error() -> None:
    assert run("def g(x):\n    return 4\n", CHECK, PATIENT) == Ending("error", "NameError")
