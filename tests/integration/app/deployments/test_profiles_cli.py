"""`hemostat profiles` and the checks of `hemostat calibrate`, against an API process."""

import json
import subprocess
import sys

from tests.integration.app.conftest import Server
from tests.support.profiles import Temperature, low_rank, record
from workers.calibration.profiles import ProfileStore


def hemostat(server: Server, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments, "--url", server.url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_profiles_are_listed_shown_and_deleted(server: Server) -> None:
    server.start()
    assert "No profiles." in hemostat(server, "profiles", "list")
    store = ProfileStore(server.settings)
    one, other = store.put(low_rank(), record()), store.put(Temperature(1.5), record(seed=2))
    listed = json.loads(hemostat(server, "profiles", "list", "--json"))
    assert {profile["version"] for profile in listed["data"]} == {one.version, other.version}
    assert one.version in hemostat(server, "profiles", "list")
    assert "low-rank map" in hemostat(server, "profiles", "show", one.version)
    assert "is deleted" in hemostat(server, "profiles", "delete", one.version)
    assert "There is no calibration profile" in hemostat(server, "profiles", "show", one.version, status=2)
