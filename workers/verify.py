"""The verify process of one deployment: `python -m workers.verify --deployment ID`.

The candidate drafts and the reference verifies, so that answers follow the reference's distribution exactly
(docs/verified.md). It offers that only after a self-test at start. If the test fails, the process stays, reports the
measured reason, and answers 501.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from workers.engine import environment

if __name__ == "__main__":
    environment.start_with_engine_environment()  # before torch is imported

import uvicorn

from app.address import listening_on, url_of
from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.errors import HemostatError
from app.deployments.secret import new_secret
from app.deployments.store import DeploymentStore
from app.protocol import BoundedProtocol
from app.settings import Settings
from workers import sidecar
from workers.calibration.online.compute import Compute, GpuFailed, Stopped
from workers.calibration.verified import selftest
from workers.calibration.verified.models import VerifiedModels
from workers.calibration.verified.requests import RequestQueue
from workers.calibration.verified.routes import make_app
from workers.process.failures import safe_traceback
from workers.process.tasks import cancel
from workers.telemetry_verify import VerifyTelemetry
from workers.text.shipped import load_shipped
from workers.text.tokenization import encode, load_tokenizer

logger = logging.getLogger("workers.verify")  # also where it runs as __main__

PROMPTS: Final = 4  # of the self-test
PROMPT_TOKENS: Final = 8


class _Server(uvicorn.Server):
    """Leaves signals to the process: uvicorn's own handlers would wait for the streams that are open."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Verifying:
    """One deployment's verify process: lease, door, self-test, rounds."""

    def __init__(self, settings: Settings, store: DeploymentStore, deployment: Deployment) -> None:
        self._settings, self._store, self._deployment = settings, store, deployment
        self._telemetry = VerifyTelemetry(deployment.name)
        self._compute = Compute("verify")
        self._queue: RequestQueue | None = None
        self._state = DeploymentState.STARTING
        self._reason = "its engines start"
        self._ends = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping` is set, or until the deployment is deleted."""
        host = listening_on("127.0.0.1", self._settings.advertise_host)
        with socket.socket() as listener:
            listener.bind((host, 0))
            url = url_of(self._settings.advertise_host or host, listener.getsockname()[1])
            secret = "" if self._settings.advertise_host is None else new_secret()
            door = make_app(lambda: self._queue, lambda: self._reason, self._telemetry.registry, secret)
            options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
            server = _Server(uvicorn.Config(door, lifespan="off", http=BoundedProtocol, **options))
            replica = sidecar.replica_of("verify", (f"{url}/metrics",), url=url, secret=secret)
            logger.info("verify process of %s at %s", self._deployment.name, url)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="door")
            working = asyncio.create_task(self._work(), name="verify")
            beating = asyncio.create_task(
                sidecar.heartbeat(
                    self._settings, self._store, self._deployment.id, replica, lambda: (self._state, self._reason)
                ),
                name="heartbeat",
            )
            asked = asyncio.create_task(stopping.wait(), name="stopping")
            try:
                # The work goes on beside a self-test that failed: it ends alone where engines failed at work.
                await asyncio.wait({serving, working, beating, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._queue = None
                self._ends.set()
                self._compute.stop()
                await asyncio.wait({working}, timeout=sidecar.GRACE_S)
                server.should_exit = True
                server.force_exit = True
                await asyncio.wait({serving}, timeout=sidecar.GRACE_S)
                await cancel(beating, asked)
                await sidecar.leave(self._store, self._deployment.id, replica)
            for task in (working, serving, beating):
                if task.done() and not task.cancelled():
                    task.result()

    async def _work(self) -> None:
        """Offers verified decoding, or says why not, until the process is asked to go. Raises what fails at work."""
        try:
            requests = await self._prepared()
        except Stopped:
            return
        except GpuFailed:
            raise  # another process may do better
        except HemostatError as error:
            self._say(DeploymentState.FAILED, error.detail)
            logger.error("%s; %s", error.detail, error.hint)  # noqa: TRY400 - it is reported whole
            requests = None
        except Exception as error:
            self._say(DeploymentState.FAILED, f"verified decoding failed ({type(error).__name__}); see its log")
            logger.error("verified decoding failed\n%s", safe_traceback(error))  # noqa: TRY400 - without values
            requests = None
        if requests is None:
            await self._ends.wait()
            return
        self._queue = requests
        try:
            await self._compute.run(requests.work)
        except Stopped:
            return
        finally:
            self._queue = None

    async def _prepared(self) -> RequestQueue | None:
        """What takes requests; None, and the reason is reported, where the self-test failed."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        models: VerifiedModels = await self._compute.run(
            VerifiedModels, self._deployment, settings, streams=settings.verify_streams, tokens=some_tokens
        )
        tokenizer = load_tokenizer(models.tokenizer_folder)
        prompts = [encode(tokenizer, text[:200])[:PROMPT_TOKENS].tolist() for text in _texts(PROMPTS)]
        started = time.monotonic()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._say, DeploymentState.STARTING, f"self-test: {done} of {total}")

        found = await self._compute.run(
            selftest.run,
            models.verifier,
            prompts,
            draws=settings.verify_draws,
            seed=secrets.randbits(63),
            progress=progress,
        )
        logger.info("engines took %.1f s, the self-test %.1f s", started - began, time.monotonic() - started)
        await asyncio.to_thread(self._keep, found)
        if not found.passed:
            self._say(DeploymentState.FAILED, f"its self-test failed: {found.reason}")
            return None
        requests = RequestQueue(
            models.verifier,
            tokenizer.backend_tokenizer,
            stops=models.stops,
            running=settings.verify_streams,
            waiting=4 * settings.verify_streams,
        )
        requests.on_finish = lambda stream: self._telemetry.finished(
            drawn=stream.drawn, passes=stream.passes, drafted=stream.drafted, overlap=stream.overlap
        )
        self._say(DeploymentState.READY, f"{found.reason}; prompt and answer together at most {models.length} tokens")
        return requests

    def _keep(self, found: selftest.SelfTest) -> None:
        """The measured self-test beside the deployment's other files, written whole."""
        folder = self._settings.home / "deployments" / self._deployment.id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / f"selftest.{os.getpid()}.part"
        file.write_text(json.dumps(vars(found), indent=1), encoding="utf-8")
        file.replace(folder / "selftest.json")

    def _say(self, state: DeploymentState, reason: str) -> None:
        if (state, reason) != (self._state, self._reason) and state is not DeploymentState.STARTING:
            logger.info("%s: %s", state.value, reason)
        self._state, self._reason = state, reason


def some_tokens(tokenizer_folder: Path) -> list[int]:
    """A short text of the shipped ones in the models' tokens, for the check of the head."""
    ids: list[int] = encode(load_tokenizer(tokenizer_folder), " ".join(_texts(PROMPTS))).tolist()
    return ids


def _texts(count: int) -> list[str]:
    documents = load_shipped("calibration", chat_template=False)
    return [document.text for document in documents if document.text][:count]


async def _verify(settings: Settings, store: DeploymentStore, deployment: Deployment, stopping: asyncio.Event) -> None:
    await Verifying(settings, store, deployment).run(stopping)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return sidecar.start("verify", _verify, arguments)


if __name__ == "__main__":
    sys.exit(main())
