"""A shadow process beside the bench's servers is stopped and goes on as a whole."""

import subprocess
from types import SimpleNamespace
from typing import cast

import psutil

from app.contracts.deployment import Deployment
from app.deployments.store import DeploymentStore
from tests.bench.serve_shadow import ShadowBeside
from tests.support.worker import wait_for


def test_it_is_stopped_and_goes_on() -> None:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        deployment = cast(Deployment, SimpleNamespace(id="dep"))
        shadow = ShadowBeside(cast(DeploymentStore, None), deployment, process)
        seen = psutil.Process(process.pid)
        shadow.stop()
        wait_for(lambda: seen.status() == psutil.STATUS_STOPPED, what="a stopped process")
        shadow.go_on()
        wait_for(lambda: seen.status() != psutil.STATUS_STOPPED, what="one that goes on")
    finally:
        process.kill()
        process.wait()
