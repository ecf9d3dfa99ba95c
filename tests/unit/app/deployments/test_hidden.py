import os
import time

from app.deployments.hidden import sweep, sweep_all
from app.settings import Settings


def leave(deployment, name, age_s):
    file = deployment / "hidden" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"secret")
    os.utime(file, (time.time() - age_s, time.time() - age_s))
    return file


def test_what_nobody_came_for_is_swept_when_it_is_old(tmp_path):
    old, young = leave(tmp_path, "old.bin", 100), leave(tmp_path, "young.bin", 0)
    assert sweep(tmp_path, 50) == 1
    assert (old.exists(), young.exists()) == (False, True)
    assert sweep(tmp_path / "nowhere", 50) == 0


def test_of_every_deployment_also_of_one_whose_processes_are_gone(tmp_path):
    settings = Settings(home=tmp_path, shadow_expiry_s=60)
    assert sweep_all(settings) == 0
    files = [
        leave(tmp_path / "deployments" / name, "r.bin.part", age) for name, age in (("a", 90), ("b", 70), ("c", 1))
    ]
    (tmp_path / "deployments" / "stray.json").touch()
    assert sweep_all(settings) == 2
    assert [file.exists() for file in files] == [False, False, True]
