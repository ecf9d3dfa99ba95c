"""The services of docker-compose.yml as processes of this machine.

What compose resolves is what runs: commands, environment, mounts, secrets, health checks. Only what a container
would bring is mapped: paths inside to paths here, host names to loopback, ports to free ones; and scrapes are closer.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from app.jobs.embedded import valkey_binary
from tests.support.ports import free_port
from tests.support.tools import tool

Json = dict[str, Any]
ROOT: Final = Path(__file__).resolve().parents[3]
PORTS: Final = ("6379", "8080", "8321", "8322", "8443", "9090")
HOSTS: Final = ("redis", "api", "worker", "serve", "prometheus")
START_S: Final = 120.0
_DNS: Final = r"dns_sd_configs:\s+- names: \[(\w+)\]\s+type: A\s+port: (\d+)"  # Docker's names of containers


def resolved(*profiles: str) -> Json:
    """The compose file as compose reads it."""
    options = [part for profile in profiles for part in ("--profile", profile)]
    done = subprocess.run(
        [tool("docker-compose"), *options, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


class Stack:
    """Services are started one by one, in the order that the compose file asks for; `stop` ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = resolved("cpu", "demo", "tls")
        self.services: Json = self.project["services"]
        self.ports = dict(zip(PORTS, (str(free_port()) for _ in PORTS), strict=True))
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        done = subprocess.run([ROOT / "deploy" / "secrets.sh", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        key, certificate = (str(folder / "secrets" / name) for name in ("tls.key", "tls.crt"))
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
        make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(make, capture_output=True, check=True)
        self.bin = self._programs()

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text()

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}"

    @property
    def redis_url(self) -> str:
        return self.mapped(self.secret("redis_url"), {})

    def volume(self, name: str) -> Path:
        made = self.folder / "volumes" / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def start(self, name: str) -> None:
        """Starts a service and waits until its own health check passes, or for a one-shot, until it has ended well."""
        service = self.services[name]
        for other, condition in service.get("depends_on", {}).items():
            if other in self.services and condition["condition"] == "service_healthy":
                assert other in self._running, f"{name} depends on {other}"
        mounts = self._mounts(service)
        command = [self.mapped(part, mounts) for part in service["command"]]
        if "build" in service:
            command = ["entrypoint.sh", *command]  # the images' own
        elif command[0].startswith("-"):
            command = [name, *command]  # the image's entry point is the server
        environment = self._environment(service, mounts)
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        if service["restart"] == "no":
            assert process.wait(START_S) == 0, self.log(name)
            return
        self._running[name] = process
        deadline = time.monotonic() + START_S
        while not self.healthy(name):
            assert process.poll() is None, self.log(name)
            assert time.monotonic() < deadline, self.log(name)
            time.sleep(0.2)

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        service = self.services[name]
        mounts = self._mounts(service)
        kind, *rest = [self.mapped(part, mounts) for part in service["healthcheck"]["test"]]
        command = ["sh", "-c", *rest] if kind == "CMD-SHELL" else rest
        environment = self._environment(service, mounts)
        found = shutil.which(command[0], path=environment["PATH"])
        assert found, f"{command[0]} is not in the PATH of {name}"
        return subprocess.run([found, *command[1:]], env=environment, capture_output=True, check=False).returncode == 0

    def run(self, name: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in a service, as `docker compose exec --env NAME=VALUE`."""
        service = self.services[name]
        environment = self._environment(service, self._mounts(service)) | environment
        program = str(shutil.which(command[0], path=environment["PATH"]))
        command = (program, *command[1:])
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=self.folder)

    def end(self, name: str) -> int:
        """SIGTERM, as `docker compose stop`; the exit status."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.wait()

    def stop(self) -> None:
        for name in reversed(list(self._running)):
            self.end(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]

    def mapped(self, text: str, mounts: dict[str, Path]) -> str:
        """Paths, hosts and ports of a container as those of this machine."""
        inside = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
        if inside:
            text = re.sub(rf"(?<![\w./-])({inside})(?=[/\s;]|$)", lambda found: str(mounts[found[1]]), text)
        text = re.sub(rf"(?<![\w./-])({'|'.join(HOSTS)})(?=:\d)|(?<=//)({'|'.join(HOSTS)})(?=:\d)", "127.0.0.1", text)
        return re.sub(rf"(?<![\w.])({'|'.join(PORTS)})(?![\w.])", lambda found: self.ports[found[1]], text)

    def _environment(self, service: Json, mounts: dict[str, Path]) -> dict[str, str]:
        given = {name: self.mapped(value, mounts) for name, value in service.get("environment", {}).items()}
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.volume("home")),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        } | given

    def _mounts(self, service: Json) -> dict[str, Path]:
        """Path inside -> path here."""
        found = {path.partition(":")[0]: self.volume("tmp") for path in service.get("tmpfs", [])}
        for volume in service.get("volumes", []):
            if volume["type"] == "volume":
                found[volume["target"]] = self.volume(volume["source"])
            else:
                found[volume["target"]] = self._copied(Path(volume["source"]))
        for secret in service.get("secrets", []):
            source = self.folder / "secrets" / Path(self.project["secrets"][secret["source"]]["file"]).name
            mapped = self.folder / "run" / Path(secret["target"]).name
            if not mapped.exists():
                mapped.parent.mkdir(exist_ok=True)
                mapped.write_text(self.mapped(source.read_text(), {}))
            found[secret["target"]] = mapped
        return found

    def _copied(self, source: Path) -> Path:
        """A copy of what is mounted, in which hosts, ports and secrets are mapped; of secrets/ what was made here."""
        if source.is_relative_to(ROOT / "secrets"):
            return self.folder / source.relative_to(ROOT)
        target = self.folder / "mounted" / source.name
        if target.exists():
            return target
        target.parent.mkdir(exist_ok=True)
        if source.is_file():
            shutil.copy(source, target)
        else:
            shutil.copytree(source, target)
        paths = {"/run/secrets": self.folder / "run", "/tmp": self.volume("tmp")}
        for file in [target] if source.is_file() else target.rglob("*.yml"):
            text = re.sub(_DNS, r"static_configs: [{targets: ['\1:\2']}]", file.read_text())
            text = self.mapped(text, paths)
            file.write_text(re.sub(r"\b1[05]s\b", "1s", text) if file.name == "prometheus.yml" else text)
        return target

    def _programs(self) -> Path:
        """What the images have on their path, by the same names."""
        folder = self.folder / "bin"
        folder.mkdir()
        programs = {
            "python": [sys.executable],
            "python3": [sys.executable],
            "hemostat": [sys.executable, "-m", "app.cli.main"],
            "valkey-server": [str(valkey_binary())],
            "nginx": ["/usr/sbin/nginx", "-g", "'user root;'"],  # one user for all of it, as in the container
            "entrypoint.sh": [str(ROOT / "deploy" / "entrypoint.sh")],
            "agent_healthy.py": [sys.executable, str(ROOT / "deploy" / "agent_healthy.py")],
            "healthy.py": [sys.executable, str(ROOT / "deploy" / "healthy.py")],
        }
        for name, command in programs.items():
            file = folder / name
            file.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {" ".join(command)} "$@"\n')
            file.chmod(0o755)
        return folder
