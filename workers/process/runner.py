"""Runs one job at a time in the child process, and sees to it that every attempt ends, recorded once.

How an attempt can end, and what is then written:

- The handler returned: succeeded (refused if another attempt has the job meanwhile).
- The handler raised: failed, with a code that says why.
- The owner cancelled: cancelled; the child is killed when it does not stop in time.
- The child died: failed: out of memory (killed from outside) or a crash.
- The child hangs: failed: stalled; its stack is in the log, and it is killed.
- It takes longer than asked for: failed: timed out; the child is killed when it does not stop in time.
- Another worker took the job: nothing.
- Another worker still runs it: nothing; it was delivered because Redis was away for longer than a lease lasts.
- This worker is asked to go: released: queued again, resumed elsewhere from the scratch folder.
- Another job waits for a fit: released: queued again behind the jobs that wait, resumed after them.

An idle worker's child may help with the running job of another worker (`workers.process.helping`). It is asked to stop
as soon as a job of its own comes, and nothing of how that ends is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import uuid
from enum import StrEnum
from typing import Final

from redis.exceptions import RedisError

from app.contracts.errors import ErrorCode
from app.contracts.job import JobError, JobStatus, Progress, job_error
from app.jobs.record import Claim
from app.jobs.store import JobStore, Orders
from app.settings import Settings
from workers.process.attempt import Attempt, Reason, longest_silence_s
from workers.process.context import REPORT_NAME, clean_job, is_full, output_folder
from workers.process.drain import Drain
from workers.process.failures import explain_exit, safe_traceback
from workers.process.handle import ChildProcess, ChildStartError
from workers.process.holder import living_holder
from workers.process.lease import GIVE_UP_S, Lease
from workers.process.messages import Done, Ending, Failed, Logged, Observed, ProgressMade, Run
from workers.process.persist import NotRecordedError, Persist
from workers.process.reporter import Reporter
from workers.process.tasks import cancel
from workers.process.yielding import Turn, is_own_fit, turn_s, waiting, worker_share
from workers.telemetry import SCORING_RATE, Telemetry, UnknownMetricError

logger = logging.getLogger(__name__)

POLL_S: Final = 0.25
YIELD_POLL_S: Final = 1.0
SILENCE_POLL_S: Final = 0.5
READING_S: Final = 30.0  # for the sizes of a job's models
# An idle child needs no longer to close its engine, and loses nothing when it is killed.
CLOSE_S: Final = 3.0


class InOtherHandsError(Exception):
    """The worker that has the job lives and runs it: the delivery is that worker's, and must stay open."""


class Outcome(StrEnum):
    """What became of an attempt; values of the metric's label."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RELEASED = "released"
    LOST = "lost"


class Runner:
    """The worker's side of `run_job`."""

    def __init__(
        self, settings: Settings, store: JobStore, telemetry: Telemetry, *, worker: str, handlers: str, drain: Drain
    ) -> None:
        self._settings = settings
        self._store = store
        self._telemetry = telemetry
        self._worker = worker
        self._handlers = handlers
        self._drain = drain
        self._persist = Persist(telemetry, drain)
        self._child: ChildProcess | None = None
        self._starting = asyncio.Lock()
        self._using = asyncio.Lock()  # the child: it does one thing at a time
        self._waiting = 0  # jobs of our own that want it
        self._lent: Attempt | None = None
        self.job: str | None = None
        # Parameters times tokens per second of the last pass of a reference over a text.
        self.scoring_rate: float | None = None

    @property
    def helping(self) -> str | None:
        """The job of another worker that the child measures points of at this moment."""
        return None if self._lent is None else self._lent.claim.job_id

    async def warm_up(self) -> None:
        """Starts the child before the first job asks for it. A failure is given by that job."""
        with contextlib.suppress(ChildStartError):
            await self._ready_child()

    async def close(self) -> None:
        """Ends the child."""
        async with self._starting:
            if self._child is not None:
                await self._child.stop(CLOSE_S)
                self._ended("drain")

    def sample(self) -> None:
        """Brings the gauges up to date that nothing else does."""
        resident = self._child.resident_bytes() if self._child is not None and self._child.alive else 0
        self._telemetry.observe("worker_child_resident_bytes", resident)
        self._telemetry.observe("worker_busy", 1 if self.job else 0)
        if not self.job and not self.helping:
            self._telemetry.observe("worker_job_silent_seconds", 0)
        self._telemetry.observe("worker_helping", 1 if self.helping else 0)

    async def run(self, job_id: str, lease: Lease) -> None:
        """Runs a delivered job to one of its ends.

        Raises `NotRecordedError` when that end could not be written before the worker had to go, and
        `InOtherHandsError` where another worker runs it.
        """
        self._waiting += 1
        try:
            if self._lent is not None:
                self._lent.stop(Reason.DRAIN)
            async with self._using:
                await self._run(job_id, lease)
        finally:
            self._waiting -= 1

    async def _run(self, job_id: str, lease: Lease) -> None:
        holder = await self._persist(lambda: living_holder(self._store, job_id, self._worker))
        if holder is not None:
            logger.info("%s was delivered again, and is left to worker %s, which runs it", job_id, holder)
            raise InOtherHandsError(job_id)
        token = uuid.uuid4().hex  # of this delivery: a claim whose reply was lost is not a second one
        claim = await self._persist(lambda: self._store.claim(job_id, self._worker, token=token))
        await lease.hand_over(self._store)
        if claim is None:
            await self._clean_if_ended(job_id)
            return
        self.job = job_id
        logger.info("%s attempt %d begins", job_id, claim.attempt)
        try:
            await self._count_redelivery(job_id)
            outcome = await self._attempt(claim, lease)
        finally:
            self.job = None
        logger.info("%s attempt %d: %s", job_id, claim.attempt, outcome)
        self._telemetry.observe("worker_jobs", 1, outcome=outcome)
        if outcome is Outcome.LOST:
            self._telemetry.observe("worker_leases_lost", 1)

    async def lend(self, claim: Claim) -> bool:
        """Lets the child help the worker that has this job, until there is no more to do or the job ends. It stops too
        if a job of our own comes, or this worker is asked to go. True: nothing is left for this worker to help with.

        Whatever goes wrong here leaves the job as it is. Raises `RedisError`.
        """
        async with self._using:
            try:
                child = await self._ready_child()
            except ChildStartError:
                return True
            attempt = self._attempt_of(claim, child)
            if self._waiting or self._drain.begun.is_set():
                return False
            self._lent = attempt
            watchers = (
                asyncio.create_task(self._watch_record(attempt), name="watch record"),
                asyncio.create_task(self._stop_at_drain(attempt), name="watch drain"),
                asyncio.create_task(self._watch_silence(attempt), name="watch silence"),
            )
            logger.info("%s attempt %d: helping", claim.job_id, claim.attempt)
            try:
                await child.send(Run.of(claim, await worker_share(self._store, self._settings), helping=True))
                ending = await self._listen(attempt, None)
            finally:
                self._lent = None
                await cancel(*watchers)
                await attempt.settle()
            if ending is None or (isinstance(ending, Failed) and ending.spoiled):
                await child.kill()
                self._ended(attempt.reason or "crash")
            if isinstance(ending, Failed):
                logger.warning("%s: helping failed: %s", claim.job_id, ending.error.detail)
        await self._clean_if_ended(claim.job_id)
        return attempt.reason is not Reason.DRAIN

    async def _stop_at_drain(self, attempt: Attempt) -> None:
        await self._drain.begun.wait()
        attempt.stop(Reason.DRAIN)

    # --- one attempt

    async def _attempt(self, claim: Claim, lease: Lease) -> Outcome:
        try:
            child = await self._ready_child()
        except ChildStartError as error:
            return await self._fail(claim, job_error(ErrorCode.ENGINE_FAILED, str(error), "see the worker's log"))
        attempt = self._attempt_of(claim, child)
        # docket may cancel this task when the job's owner cancels: then too the attempt ends in order.
        inner = asyncio.create_task(self._guarded(attempt, lease), name=f"attempt {claim.job_id}")
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            attempt.stop(Reason.CANCEL)
            return await inner

    def _attempt_of(self, claim: Claim, child: ChildProcess) -> Attempt:
        turn = Turn(turn_s(self._settings.fit_turn_s, claim.attempt))
        return Attempt(claim, child, self._settings.cancel_grace_s, turn)

    async def _guarded(self, attempt: Attempt, lease: Lease) -> Outcome:
        """No error of this process leaves the record running for ever."""
        try:
            return await self._drive(attempt, lease)
        except NotRecordedError:
            raise
        except Exception as error:
            logger.error("%s: error in the worker itself\n%s", attempt.claim.job_id, safe_traceback(error))  # noqa: TRY400
            await attempt.child.kill()
            self._ended("failure")
            detail = f"{type(error).__name__} in the worker"
            return await self._fail(attempt.claim, job_error(ErrorCode.INTERNAL, detail, "see the worker's log"))

    async def _drive(self, attempt: Attempt, lease: Lease) -> Outcome:
        keeping = asyncio.create_task(lease.keep(self._settings.redelivery_s / 4), name="keep lease")
        try:
            ending = await self._until_ending(attempt)
            return await self._record(attempt, ending, lease)
        finally:
            await cancel(keeping)

    async def _until_ending(self, attempt: Attempt) -> Ending | None:
        """Hands the job over and listens until the child has said how it ended; None if it died without."""
        claim, share = attempt.claim, await self._persist(lambda: worker_share(self._store, self._settings))
        reporter = Reporter(self._store, claim.job_id, claim.attempt, stale=lambda: attempt.stop(Reason.LOST))
        watchers = (
            asyncio.create_task(self._watch_record(attempt), name="watch record"),
            asyncio.create_task(self._watch_drain(attempt), name="watch drain"),
            asyncio.create_task(self._watch_queue(attempt), name="watch queue"),
            asyncio.create_task(self._watch_silence(attempt), name="watch silence"),
            asyncio.create_task(attempt.watch_time(claim.request.timeout_s), name="watch time"),
        )
        try:
            await attempt.child.send(Run.of(claim, share))
            return await self._listen(attempt, reporter)
        finally:
            await cancel(*watchers)
            await attempt.settle()
            await reporter.close()

    async def _listen(self, attempt: Attempt, reporter: Reporter | None) -> Ending | None:
        claim = attempt.claim
        while (message := await attempt.child.receive()) is not None:
            attempt.silent_s = 0.0
            if isinstance(message, Observed):
                self._observe(message)
            elif isinstance(message, Ending | ProgressMade | Logged):
                if (message.job, message.attempt) != (claim.job_id, claim.attempt):
                    continue
                if isinstance(message, Ending):
                    return message
                if isinstance(message, ProgressMade):
                    attempt.turn.at(message.phase)
                if reporter is None:
                    continue  # the attempt's own worker shows how far it is
                if isinstance(message, ProgressMade):
                    reporter.progress(Progress(phase=message.phase, done=message.done, total=message.total))
                else:
                    reporter.log(message.message)
        return None

    def _observe(self, message: Observed) -> None:
        if message.name == SCORING_RATE and message.values:
            self.scoring_rate = message.values[-1]
        try:
            self._telemetry.observe_many(message.name, message.values, message.labels)
        except UnknownMetricError as error:
            logger.error("a handler's sample is dropped: %s", error)  # noqa: TRY400

    async def _watch_record(self, attempt: Attempt) -> None:
        while True:
            try:
                orders = await self._store.orders(attempt.claim.job_id, attempt.claim.attempt)
                self._telemetry.observe("worker_redis_up", 1)
            except Exception as error:
                # Whatever it is, a job whose record is not watched could not be cancelled.
                self._telemetry.observe("worker_redis_up", 0)
                if not isinstance(error, RedisError | OSError):
                    logger.error("the record cannot be read\n%s", safe_traceback(error))  # noqa: TRY400
            else:
                if orders is Orders.CANCEL:
                    attempt.stop(Reason.CANCEL)
                elif orders is Orders.STOP:
                    attempt.stop(Reason.LOST)
            await asyncio.sleep(POLL_S)

    async def _watch_drain(self, attempt: Attempt) -> None:
        await self._drain.begun.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drain.hurry.wait(), self._settings.drain_s)
        attempt.stop(Reason.DRAIN)

    async def _watch_silence(self, attempt: Attempt) -> None:
        """Ends an attempt whose child hangs. Counts its own steps: a worker that was frozen itself blames no one."""
        attempt.stall_s = self._settings.job_stall_s
        with contextlib.suppress(Exception):  # a disk that hangs must not stop who looks for what hangs
            reading = asyncio.to_thread(longest_silence_s, attempt.claim.request, self._settings)
            attempt.stall_s = await asyncio.wait_for(reading, READING_S)
        while attempt.silent_s < attempt.stall_s:
            self._telemetry.observe("worker_job_silent_seconds", attempt.silent_s)
            await asyncio.sleep(SILENCE_POLL_S)
            attempt.silent_s += SILENCE_POLL_S
        logger.error("%s gives no sign of progress; the stacks of its process:", attempt.claim.job_id)
        attempt.stop(Reason.STALL)

    async def _watch_queue(self, attempt: Attempt) -> None:
        """Ends the turn of a deployment's own fit where a job waits that somebody asked for."""
        claim = attempt.claim
        if not await self._persist(lambda: is_own_fit(self._store, claim)):
            return
        other: str | None = None
        while other is None:  # Redis is asked, no event shows
            await asyncio.sleep(YIELD_POLL_S)
            other = await waiting(self._store) if attempt.turn.over else None
        logger.info("%s attempt %d makes way for %s", claim.job_id, claim.attempt, other)
        with contextlib.suppress(RedisError, OSError):
            await self._store.log(claim.job_id, claim.attempt, "gives way to a waiting job and continues after it")
        attempt.stop(Reason.YIELD)

    # --- its end

    async def _record(self, attempt: Attempt, ending: Ending | None, lease: Lease) -> Outcome:
        claim, reason = attempt.claim, attempt.reason
        died = explain_exit(attempt.child.returncode) if ending is None else None
        if died is not None:
            if reason is Reason.YIELD:
                reason = None  # it was asked, and killed by no one here
            oom = died.code is ErrorCode.ENGINE_OUT_OF_MEMORY
            self._ended(reason or ("out_of_memory" if oom else "crash"))
        elif isinstance(ending, Failed) and ending.spoiled:
            await attempt.child.kill()
            oom = ending.error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
            self._ended("out_of_memory" if oom else "failure")

        if reason is Reason.LOST:
            await self._clean_attempt(claim)
            return Outcome.LOST
        if reason is Reason.CANCEL:
            accepted = await self._persist(
                lambda: self._store.cancelled(claim.job_id, claim.attempt), away=lambda: self._make_room(claim)
            )
            return await self._ended_as(claim, Outcome.CANCELLED, accepted=accepted)
        if isinstance(ending, Done):
            return await self._finish(claim, ending)
        if isinstance(ending, Failed):
            return await self._fail(claim, ending.error)
        if reason in {Reason.DRAIN, Reason.YIELD}:
            return await self._release(claim, lease)
        why = attempt.overdue() or died
        return await self._fail(claim, why or job_error(ErrorCode.INTERNAL, "the job stopped without being told to"))

    async def _finish(self, claim: Claim, done: Done) -> Outcome:
        accepted = await self._persist(
            lambda: self._store.finish(
                claim.job_id,
                claim.attempt,
                report=f"{output_folder(self._settings, claim.job_id, claim.attempt).name}/{REPORT_NAME}",
                severity=done.severity,
                classes=done.classes,
                answer=done.answer,
                artifacts=done.artifacts,
            ),
            away=lambda: self._make_room(claim, keep=claim.attempt),
        )
        return await self._ended_as(claim, Outcome.SUCCEEDED, accepted=accepted)

    async def _fail(self, claim: Claim, error: JobError) -> Outcome:
        logger.warning("%s failed: %s: %s", claim.job_id, error.code, error.detail)
        full = error.code is ErrorCode.DISK_FULL  # of a quota the file system itself says nothing
        accepted = await self._persist(
            lambda: self._store.fail(claim.job_id, claim.attempt, error),
            away=lambda: self._make_room(claim, full=full),
        )
        return await self._ended_as(claim, Outcome.FAILED, accepted=accepted)

    async def _release(self, claim: Claim, lease: Lease) -> Outcome:
        if not await self._persist(lambda: self._store.release(claim.job_id, claim.attempt)):
            return await self._ended_as(claim, Outcome.RELEASED, accepted=False)
        await self._clean_attempt(claim)
        try:
            await asyncio.wait_for(lease.give_back(claim.job_id), GIVE_UP_S)
        except (RedisError, OSError, TimeoutError) as error:
            raise NotRecordedError from error
        return Outcome.RELEASED

    async def _ended_as(self, claim: Claim, outcome: Outcome, *, accepted: bool) -> Outcome:
        """Tidies up after an end that was written, or that was refused for another one."""
        if not accepted:
            record = await self._persist(lambda: self._store.get(claim.job_id))
            ours = record.job.status if record is not None and record.job.attempt == claim.attempt else None
            if ours is JobStatus.CANCELLED:
                outcome = Outcome.CANCELLED
            elif ours is JobStatus.SUCCEEDED:  # the error came after the result was recorded, which is
                outcome = Outcome.SUCCEEDED
            else:
                await self._clean_attempt(claim)
                return Outcome.LOST
        await self._clean_job(claim.job_id, keep=claim.attempt if outcome is Outcome.SUCCEEDED else None)
        return outcome

    async def _count_redelivery(self, job_id: str) -> None:
        with contextlib.suppress(RedisError, OSError):
            record = await self._store.get(job_id)
            if record is not None and record.tries > 1:
                self._telemetry.observe("worker_redeliveries", 1)
                logger.warning("%s: try %d, the one before was lost with its worker", job_id, record.tries)

    # --- the child

    async def _ready_child(self) -> ChildProcess:
        async with self._starting:
            if self._child is not None and not self._child.alive:
                await self._child.kill()
                self._ended("idle")
            if self._child is None:
                self._telemetry.observe("worker_child_starts", 1)
                self._child = await ChildProcess.start(self._handlers)
            return self._child

    def _ended(self, reason: str) -> None:
        self._child = None
        self._telemetry.observe("worker_child_exits", 1, reason=reason)
        self._telemetry.child_ended()

    # --- files

    async def _clean_attempt(self, claim: Claim) -> None:
        """Removes what this attempt would have handed in; the scratch folder belongs to the next one."""
        await asyncio.to_thread(
            shutil.rmtree, output_folder(self._settings, claim.job_id, claim.attempt), ignore_errors=True
        )

    async def _clean_job(self, job_id: str, *, keep: int | None) -> None:
        """Removes everything of an ended job but the attempt that succeeded."""
        await asyncio.to_thread(clean_job, self._settings, job_id, keep=keep)

    async def _make_room(self, claim: Claim, *, keep: int | None = None, full: bool = False) -> None:
        """Removes what an attempt that has ended left, before its end is recorded, where the disk is full.

        A Valkey on the same disk ends when it cannot write, and cannot start again: who waited for it with the files
        that fill the disk would wait for ever. Elsewhere they are kept: should this worker go as well, the next attempt
        resumes from them.
        """
        if full or await asyncio.to_thread(is_full, self._settings.home):
            await self._clean_job(claim.job_id, keep=keep)

    async def _clean_if_ended(self, job_id: str) -> None:
        record = await self._persist(lambda: self._store.get(job_id))
        if record is not None and record.ended:
            keep = record.job.attempt if record.job.status is JobStatus.SUCCEEDED else None
            await self._clean_job(job_id, keep=keep)
