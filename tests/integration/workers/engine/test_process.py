"""An engine in a process of its own, started as the worker starts it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from workers.engine.environment import child_environment, physical_cores

ROOT = Path(__file__).resolve().parents[4]

PROGRAM = """
import json, sys
reached = []
def audit(event, arguments):
    if event == "socket.connect":
        reached.append(str(arguments[1]))
    elif event == "socket.getaddrinfo":
        reached.append(str(arguments[0]))
sys.addaudithook(audit)
from pathlib import Path
from app.contracts.errors import HemostatError
from app.settings import Settings
from workers.engine.room import EngineRoom
import psutil, torch
checkpoint, home = Path(sys.argv[1]), Path(sys.argv[2])
room = EngineRoom(Settings(home=home, engine_batch_tokens=512, engine_kv_cache_bytes=16 * 1024**2))
engine = room.engine(checkpoint, 128)
states = [len(state) for _, state in engine.score([[1, 2, 3], [4]])]
listening = [
    connection.laddr.ip for connection in psutil.Process().net_connections(kind="inet") if connection.status == "LISTEN"
]
children = len(psutil.Process().children(recursive=True))
threads = torch.get_num_threads()
import resource
size = psutil.Process().memory_info().vms + 400 * 1024**2
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (size, hard))
try:
    room.engine(Path(sys.argv[3]), 128)
    code = "none"
except HemostatError as error:
    code = error.code if error.code == "engine_out_of_memory" else error.detail
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
again = [len(state) for _, state in engine.score([[1, 2, 3], [4]])]
large = [len(state) for _, state in room.engine(Path(sys.argv[3]), 128).score([[1, 2, 3], [4]])]
room.close()
print(json.dumps(dict(
    states=states, reached=reached, listening=listening, children=children, threads=threads, code=code, again=again,
    large=large,
)))
"""


def test_it_stays_on_this_machine_uses_every_core_and_survives_a_want_of_memory(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """The kernel's limit makes an allocation fail inside torch, at 250 MB of weights; the process goes on after it."""
    large = tiny("llama", hidden_size=1024, intermediate_size=4096, num_hidden_layers=8)
    environment = child_environment() | {"HF_HUB_OFFLINE": "0"}
    environment.pop("OMP_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny("llama")), str(tmp_path), str(large)],
        cwd=ROOT,
        env=child_environment(environment),
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["states"] == [3, 1]
    assert [address for address in told["reached"] if "127.0.0.1" not in address and "localhost" not in address] == []
    assert set(told["listening"]) <= {"127.0.0.1", "::1"}
    assert told["children"] == 0
    assert told["threads"] == physical_cores()
    assert told["code"] == "engine_out_of_memory"
    assert told["again"] == told["large"] == [3, 1]
