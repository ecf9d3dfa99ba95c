"""The job's states as a machine: whatever owner and workers do, in whatever order, the record keeps to its rules."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from app.contracts.errors import ErrorCode
from app.contracts.job import TERMINAL, JobStatus, Progress, job_error
from app.jobs import keys
from app.jobs.connection import connect
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore, Orders
from app.kinds.compare.request import CompareRequest
from tests.integration.app.conftest import compare
from tests.integration.conftest import RedisServer

REQUEST = CompareRequest.model_validate(compare())
MAX_ATTEMPTS = 3
# What a job's owner may see, one event after the other. A claim of a running job is running after running.
ALLOWED = {
    (None, "queued"),
    ("queued", "running"),
    ("queued", "cancelled"),
    ("running", "running"),
    ("running", "queued"),
    ("running", "cancelling"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("cancelling", "cancelled"),
}


@dataclass
class Model:
    """What the rules say a job is."""

    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    tries: int = 0
    holders: list[int] = field(default_factory=list)  # attempts whose workers believe that they have the job


def machine(server: RedisServer) -> type[RuleBasedStateMachine]:
    class Jobs(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.client = connect(server.settings)
            limits = server.settings.model_copy(update={"max_attempts": MAX_ATTEMPTS})
            self.store = JobStore(self.client, limits)
            self.run(self.client.flushall())
            self.models: dict[str, Model] = {}

        def run(self, work: Any) -> Any:
            async def awaited() -> Any:
                return await work

            return self.runner.run(awaited())

        def teardown(self) -> None:
            self.run(self.client.aclose())
            self.runner.close()

        def pick(self, data: st.DataObject) -> tuple[str, Model]:
            job_id = data.draw(st.sampled_from(sorted(self.models)))
            return job_id, self.models[job_id]

        def holder(self, data: st.DataObject) -> tuple[str, Model, int]:
            job_id, model = self.pick(data)
            assume(model.holders)
            return job_id, model, data.draw(st.sampled_from(model.holders))

        @precondition(lambda self: len(self.models) < 4)
        @rule()
        def submit(self) -> None:
            job_id = new_job_id()
            assert self.run(self.store.create(job_id, REQUEST)).kind == "created"
            self.models[job_id] = Model()

        @precondition(lambda self: self.models)
        @rule(data=st.data())
        def claim(self, data: st.DataObject) -> None:
            job_id, model = self.pick(data)
            claim = self.run(self.store.claim(job_id, "w"))
            if model.status in TERMINAL:
                assert claim is None
            elif model.status is JobStatus.CANCELLING:
                assert claim is None
                model.status = JobStatus.CANCELLED
            elif model.tries >= MAX_ATTEMPTS:
                assert claim is None
                model.status = JobStatus.FAILED
            else:
                model.attempt += 1
                model.tries += 1
                model.status = JobStatus.RUNNING
                model.holders.append(model.attempt)
                assert claim is not None
                assert (claim.attempt, claim.request) == (model.attempt, REQUEST)

        @precondition(lambda self: self.models)
        @rule(data=st.data(), done=st.integers(0, 9))
        def progress(self, data: st.DataObject, done: int) -> None:
            job_id, model, attempt = self.holder(data)
            accepted = self.run(self.store.progress(job_id, attempt, Progress(phase="p", done=done, total=9)))
            active = model.status in {JobStatus.RUNNING, JobStatus.CANCELLING}
            assert accepted == (active and attempt == model.attempt)

        @precondition(lambda self: self.models)
        @rule(data=st.data(), how=st.sampled_from(["finish", "fail", "cancelled"]))
        def end(self, data: st.DataObject, how: str) -> None:
            job_id, model, attempt = self.holder(data)
            if how == "finish":
                target = JobStatus.SUCCEEDED
                accepted = self.run(
                    self.store.finish(job_id, attempt, report=f"attempt-{attempt}/r.json", severity="mild")
                )
            elif how == "fail":
                target = JobStatus.FAILED
                accepted = self.run(self.store.fail(job_id, attempt, job_error(ErrorCode.ENGINE_FAILED, "x")))
            else:
                target = JobStatus.CANCELLED
                accepted = self.run(self.store.cancelled(job_id, attempt))
            if attempt != model.attempt or model.status is JobStatus.QUEUED:
                assert not accepted
            elif model.status in TERMINAL:
                # The same answer as the first time, whoever asks: nothing changes.
                assert accepted == (model.status is target)
            else:
                model.status = JobStatus.CANCELLED if model.status is JobStatus.CANCELLING else target
                assert accepted == (model.status is target)

        @precondition(lambda self: self.models)
        @rule(data=st.data())
        def release(self, data: st.DataObject) -> None:
            job_id, model, attempt = self.holder(data)
            accepted = self.run(self.store.release(job_id, attempt))
            if attempt != model.attempt:
                assert not accepted
            elif model.status is JobStatus.RUNNING:
                model.status = JobStatus.QUEUED
                model.tries -= 1
                assert accepted
            elif model.status is JobStatus.CANCELLING:
                model.status = JobStatus.CANCELLED
                assert accepted

        @precondition(lambda self: self.models)
        @rule(data=st.data())
        def cancel(self, data: st.DataObject) -> None:
            job_id, model = self.pick(data)
            answer = self.run(self.store.cancel(job_id))
            if model.status is JobStatus.QUEUED:
                model.status = JobStatus.CANCELLED
            elif model.status is JobStatus.RUNNING:
                model.status = JobStatus.CANCELLING
            assert answer is model.status

        @precondition(lambda self: self.models)
        @rule(data=st.data())
        def delete(self, data: st.DataObject) -> None:
            job_id, model = self.pick(data)
            answer = self.run(self.store.delete(job_id))
            assert answer == ("deleted" if model.status in TERMINAL else "active")
            if answer == "deleted":
                del self.models[job_id]
                assert self.run(self.store.get(job_id)) is None

        @precondition(lambda self: self.models)
        @rule(data=st.data())
        def compact(self, data: st.DataObject) -> None:
            job_id, model = self.pick(data)
            if model.status in TERMINAL:
                self.run(self.store.compact(job_id))

        @invariant()
        def the_record_is_as_the_rules_say(self) -> None:
            for job_id, model in self.models.items():
                record = self.run(self.store.get(job_id))
                job = record.job
                assert (job.status, job.attempt, record.tries) == (model.status, model.attempt, model.tries)
                assert (job.finished_at is not None) == (job.status in TERMINAL)
                assert (job.error is not None) == (job.status is JobStatus.FAILED)
                assert (record.report is not None) == (job.status is JobStatus.SUCCEEDED)
                file = server.settings.home / "requests" / f"{job_id}.json"
                assert file.exists() == (job.status not in TERMINAL)
                for attempt in model.holders:
                    orders = self.run(self.store.orders(job_id, attempt))
                    if attempt != model.attempt or model.status in TERMINAL | {JobStatus.QUEUED}:
                        assert orders is Orders.STOP
                    else:
                        cancelling = model.status is JobStatus.CANCELLING
                        assert orders is (Orders.CANCEL if cancelling else Orders.GO_ON)

        @invariant()
        def the_indexes_hold_each_job_once(self) -> None:
            assert self.run(self.client.zrange(keys.INDEX, 0, -1)) == sorted(self.models)
            for status in JobStatus:
                ids = self.run(self.client.zrange(keys.status(status), 0, -1))
                assert ids == sorted(name for name, model in self.models.items() if model.status is status)
            ended = {name for name, model in self.models.items() if model.status in TERMINAL}
            assert set(self.run(self.client.zrange(keys.ENDED, 0, -1))) == ended
            assert self.run(self.client.smembers(keys.UNTIDY)) <= ended

        @invariant()
        def the_events_tell_an_allowed_story_without_gaps(self) -> None:
            for job_id, model in self.models.items():
                stored = self.run(self.store.events(job_id, 0))
                assert [event.number for event in stored] == list(range(1, len(stored) + 1))
                events = [json.loads(event.data) for event in stored]
                statuses = [event["status"] for event in events if event["type"] == "state"]
                assert set(zip([None, *statuses], statuses, strict=False)) <= ALLOWED
                assert statuses[-1] == model.status
                attempts = [event["attempt"] for event in events if "attempt" in event]
                assert attempts == sorted(attempts)
                ends = [event for event in events if event["type"] == "end"]
                assert len(ends) == (model.status in TERMINAL)
                assert not ends or events[-1] is ends[0]

    return Jobs


def test_no_order_of_commands_breaks_a_rule(redis_server: RedisServer) -> None:
    run_state_machine_as_test(
        machine(redis_server),
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
