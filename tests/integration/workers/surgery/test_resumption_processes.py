"""A training whose process is killed in the middle, and the attempt after it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Repairs argv[1] in the store argv[2] with the trainings' states in argv[3], and names the step of distillation that it
# is at, or the result's fingerprint. With argv[4] it waits before that step.
REPAIRER = """
import sys, time
from pathlib import Path
from tests.unit.workers.mitigation.repair.support import RTN, operate, repair
from workers.surgery import resumption

resumption.EVERY_S, resumption._REST = 0.0, 0

def tell(phase, done, total):
    if phase == "distill":
        print(done, flush=True)
        if sys.argv[4:] == [str(done)]:
            time.sleep(600)

folder, store, training = map(Path, sys.argv[1:4])
print(operate(folder, store, RTN, repair(distill_steps=8), progress=tell, resume=training).fingerprint, flush=True)
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", REPAIRER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_a_killed_attempt_is_gone_on_with_and_gives_the_same_weights(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder, training = tiny(), tmp_path / "training"
    first = start(folder, tmp_path / "store", training, 5)
    for line in first.stdout:
        if line.strip() == "5":
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert len(list(training.iterdir())) == 1
    second = start(folder, tmp_path / "store", training)
    through = start(folder, tmp_path / "other", tmp_path / "none")
    told, undisturbed = (process.communicate(timeout=540)[0].split() for process in (second, through))
    assert told[:-1] == ["5", "6", "7", "8"]
    assert undisturbed[:-1] == [str(step) for step in range(9)]
    assert told[-1] == undisturbed[-1]
    assert list(training.iterdir()) == []
