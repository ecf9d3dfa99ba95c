"""What the processes of one user can read of a worker."""

import ctypes
import subprocess
import sys

from tests.integration.workers.process.conftest import House
from tests.support.worker import WorkerProcess, wait_for

PR_CAPBSET_DROP, CAPABILITIES = 24, 41
READER = "import sys; print(open(sys.argv[1], 'rb').read(4))"


def unprivileged() -> None:
    """As in a container: the user may be root, and has none of root's capabilities."""
    for capability in range(CAPABILITIES):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def fault(file: str) -> str:
    """Why another process of the same user cannot read a file; "" if it can."""
    command = [sys.executable, "-c", READER, file]
    answer = subprocess.run(command, preexec_fn=unprivileged, capture_output=True, text=True, check=False)
    return answer.stderr.strip().rpartition("\n")[2]


def test_no_process_of_the_user_reads_the_environment_or_memory_of_a_worker(house: House) -> None:
    with WorkerProcess(house.settings, house.settings.home / "worker.log", preexec_fn=unprivileged) as worker:
        wait_for(lambda: worker.children() != [], what="its child")
        (child,) = worker.children()
        assert fault(f"/proc/{child.pid}/environ") == ""
        for name in ("environ", "maps"):
            assert fault(f"/proc/{worker.pid}/{name}").startswith("PermissionError"), name
