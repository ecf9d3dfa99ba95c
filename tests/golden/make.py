"""Makes the home that every later version must open or refuse: `python -m tests.golden.make`.

A service over a tiny model runs jobs of three kinds, and takes a key and a deployment. What it leaves, Valkey's files
included, goes into `home.tar.xz` beside what its API answered, `answers.json`. Make it anew only if the version of a
stored format has changed on purpose.
"""

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx

from app.cli.client import Client
from app.security.keys import add_key
from app.security.scopes import Scope
from app.settings import Settings
from app.up import running
from tests.support.tiny import make_checkpoint

HOME: Final = Path(__file__).with_name("home.tar.xz")
ANSWERS: Final = "answers.json"
# What is compiled or logged anew each time.
LEFT_OUT: Final = {"inductor", "logs", "lock", "valkey.log", "valkey.sock", "instance"}
ASKED: Final = ("/v1/diagnosis/jobs", "/v1/deployments", "/v1/calibration/profiles")

Json = dict[str, Any]
RECIPE: Final = [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]
DOCUMENTS: Final = [
    {
        "id": f"d{number}",
        "domain": "prose" if number % 2 else "code",
        "text": " ".join(f"dog {number * step} jumps over {step} quick foxes" for step in range(1, 4 + number % 5)),
    }
    for number in range(48)
]
COMMON: Final = {"reference": {"model": "tiny"}, "text": {"source": "inline", "documents": DOCUMENTS}, "window": 64}
JOBS: Final[tuple[Json, ...]] = (
    {"kind": "compare", "candidate": {"model": "tiny", "recipe": RECIPE}} | COMMON,
    {"kind": "sweep", "candidate": {"model": "tiny", "recipe": [RECIPE[0] | {"bits": {"sweep": [3, 4, 6]}}]}} | COMMON,
    {"kind": "calibrate", "candidate": {"model": "tiny", "recipe": RECIPE}, "calibrators": ["temperature"]} | COMMON,
)
DEPLOYMENT: Final[Json] = {
    "name": "bot",
    "model": {"model": "tiny", "recipe": RECIPE},
    "reference": {"model": "tiny"},
    "calibration": "off",
}


def settings_at(home: Path) -> Settings:
    """Settings of the service over this home."""
    return Settings(home=home, api_keys_file=home / "keys", engine_kv_cache_bytes=16 * 1024 * 1024)


def answers_of(url: str, key: str) -> Json:
    """What the API lists, and each report."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
        answers: Json = {path: http.get(path).raise_for_status().json() for path in ASKED}
        for job in answers["/v1/diagnosis/jobs"]["data"]:
            answers[job["report_url"]] = http.get(job["report_url"]).raise_for_status().json()
    return answers


def run_jobs(url: str, key: str) -> None:
    """Runs one job after the other, and takes a deployment."""
    with Client(url, api_key=key) as client:
        for request in JOBS:
            job = client.submit(request)
            for _ in client.watch(job["id"]):
                pass
    headers = {"authorization": f"Bearer {key}"}
    httpx.post(f"{url}/v1/deployments", json=DEPLOYMENT, headers=headers).raise_for_status()


def main() -> None:
    """Runs the jobs, and writes the file."""
    with tempfile.TemporaryDirectory(prefix="hemostat-") as folder:
        home = Path(folder) / "home"
        make_checkpoint(home / "tiny", seed=3, scale=5.0)
        (home / "models.toml").write_text('[models.tiny]\npath = "tiny"\n')
        key, _ = add_key(home / "keys", "golden", frozenset({Scope.ADMIN}), expires=None, no_shadow=False)
        with running(settings_at(home)) as service:
            run_jobs(service.url, key)
            answers = {"key": key} | answers_of(service.url, key)
        written = Path(folder) / ANSWERS
        written.write_text(json.dumps(answers))
        with tarfile.open(HOME, "w:xz") as tar:
            tar.add(home, home.name, filter=lambda one: None if Path(one.name).name in LEFT_OUT else one)
            tar.add(written, written.name)


if __name__ == "__main__":
    main()
