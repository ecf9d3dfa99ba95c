import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.engine import environment
from workers.engine.serving.arguments import server_environment

ROOT = Path(__file__).resolve().parents[4]


def test_importing_it_imports_neither_torch_nor_vllm() -> None:
    code = (
        "import sys, workers.engine.environment as e; e.child_environment(); "
        "print([m for m in sys.modules if m in {'torch', 'vllm'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_child_gets_the_parents_environment_and_what_vllm_needs() -> None:
    child = environment.child_environment({"PATH": "/bin", "HEMOSTAT_HOME": "x"})
    assert child["PATH"] == "/bin"
    assert child["HEMOSTAT_HOME"] == "x"
    assert child["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert child["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
    assert child["VLLM_NO_USAGE_STATS"] == "1"
    assert int(child["OMP_NUM_THREADS"]) == environment.physical_cores()


@pytest.mark.parametrize(("executor", "address"), [("mp", "127.0.0.1"), ("ray", None)])
def test_only_parts_that_ray_spreads_over_hosts_listen_beyond_the_loopback_interface(executor, address) -> None:
    child = environment.child_environment({"HEMOSTAT_ENGINE_EXECUTOR": executor})
    assert child.get("VLLM_HOST_IP") == address
    assert ("GLOO_SOCKET_IFNAME" in child) == (address is not None)


def test_modules_of_vllm_are_imported_in_batch_invariant_mode_where_the_setting_asks_for_it() -> None:
    code = (
        "from workers.engine import environment\n"
        "from workers.engine.isolation import quiet_vllm\n"
        "environment.prepare(batch_invariant=True)\n"
        "with quiet_vllm():\n"
        "    from vllm.lora.ops.triton_ops import utils\n"
        "print(utils.is_batch_invariant)"
    )
    base = {name: value for name, value in os.environ.items() if name != environment.BATCH_INVARIANT}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=base, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
    assert environment.BATCH_INVARIANT not in server_environment(None, base, device="cpu"), "servers are not scored"


SECRETS = """
HEMOSTAT_REDIS_URL HEMOSTAT_REDIS_URL_FILE HEMOSTAT_API_KEY HEMOSTAT_API_KEYS_FILE HF_TOKEN HF_TOKEN_PATH
HUGGING_FACE_HUB_TOKEN AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID OPENAI_API_KEY POSTGRES_PASSWORD
""".split()  # noqa: SIM905 - read more easily
PLAIN = {"HEMOSTAT_HOME", "HEMOSTAT_ENGINE_BATCH_TOKENS", "TOKENIZERS_PARALLELISM", "HEMOSTAT_SHADOW_REFIT_TOKENS"}


def test_no_child_that_runs_models_gets_a_secret() -> None:
    base = dict.fromkeys([*SECRETS, *PLAIN], "1")
    for child in (environment.child_environment(base), server_environment(None, base, device="cpu")):
        assert not set(SECRETS) & set(child)
        assert set(child) >= PLAIN


def test_a_process_that_starts_itself_anew_keeps_its_secrets() -> None:
    assert environment.engine_environment({"HEMOSTAT_REDIS_URL": "x"})["HEMOSTAT_REDIS_URL"] == "x"


def test_threads_wait_without_burning_their_core_unless_told_otherwise() -> None:
    assert environment.child_environment({})["GOMP_SPINCOUNT"] == "1000"
    assert environment.child_environment({"GOMP_SPINCOUNT": "7"})["GOMP_SPINCOUNT"] == "7"
    assert "GOMP_SPINCOUNT" not in environment.child_environment({"OMP_WAIT_POLICY": "active"})


def test_what_a_person_has_set_stays_unless_results_depend_on_it() -> None:
    child = environment.child_environment(
        {
            "OMP_NUM_THREADS": "1",
            "VLLM_LOGGING_LEVEL": "DEBUG",
            "VLLM_USE_V2_MODEL_RUNNER": "1",
            "VLLM_PLUGINS": "other",
        }
    )
    assert child["OMP_NUM_THREADS"] == "1"
    assert child["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert child["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert child["VLLM_PLUGINS"] == ""


def test_tcmalloc_is_preloaded_before_what_was_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "libtcmalloc_minimal.so.4"
    library.touch()
    monkeypatch.setattr(environment, "_LIBRARY_FOLDERS", (str(tmp_path),))
    assert environment.child_environment({})["LD_PRELOAD"] == str(library)
    assert environment.child_environment({"LD_PRELOAD": "/a.so"})["LD_PRELOAD"] == f"{library}:/a.so"
    already = {"LD_PRELOAD": "/opt/libtcmalloc.so.4"}
    assert environment.child_environment(already)["LD_PRELOAD"] == "/opt/libtcmalloc.so.4"


def test_prepare_sets_what_is_missing_and_corrects_what_must_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.ENGINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    environment.prepare()
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "INFO"
    assert all(name in os.environ for name in environment.ENGINE)


@pytest.mark.parametrize("supervised", [False, True])
def test_a_process_that_lacks_it_starts_anew_once_with_id_arguments_and_parent(
    tmp_path: Path, supervised: bool
) -> None:
    (tmp_path / "program.py").write_text(
        "import ctypes, json, os, sys\n"
        "from workers.engine.environment import start_with_engine_environment\n"
        "before = os.environ.get('OMP_NUM_THREADS')\n"
        "start_with_engine_environment()\n"
        "signal = ctypes.c_int()\n"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0)  # PR_GET_PDEATHSIG\n"
        "print(json.dumps([before, os.environ['OMP_NUM_THREADS'], os.getpid(), os.getppid(), sys.argv[1:],"
        " signal.value, os.environ.get('LD_PRELOAD', '')]))\n"
    )
    lacking = {
        name: value
        for name, value in os.environ.items()
        if name not in {"LD_PRELOAD", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    }
    lacking["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    arguments = ["-m", "app.supervised", str(os.getpid())] if supervised else ["-m"]
    process = subprocess.Popen(
        [sys.executable, *arguments, "program", "--one", "two words"],
        env=lacking,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    before, threads, pid, parent, given, signalled, preload = json.loads(out)
    wanted = environment.child_environment(lacking)
    assert (before, threads) == (wanted["OMP_NUM_THREADS"], wanted["OMP_NUM_THREADS"]), "this is the second start"
    assert (pid, parent) == (process.pid, os.getpid())
    assert given == ["--one", "two words"]
    assert signalled == (signal.SIGTERM if supervised and sys.platform == "linux" else 0)
    assert preload == wanted.get("LD_PRELOAD", "")
