"""How jobs end without a worker: their records and files as one leaves them."""

from app.contracts.errors import ErrorCode
from app.contracts.job import job_error
from tests.integration.app.conftest import Api
from tests.integration.app.jobs.stored import claimed


async def finish(api: Api, job_id: str, report: bytes = b'{"schema": "hemostat.report/1"}') -> None:
    """It succeeds, with a report and one artifact."""
    claim = await claimed(api.state.store, job_id)
    folder = api.state.settings.job_dir(job_id) / f"attempt-{claim.attempt}"
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(report)
    (folder / "tokens.npz").write_bytes(b"values")
    assert await api.state.store.finish(
        job_id, claim.attempt, report=f"attempt-{claim.attempt}/report.json", severity="mild", artifacts=["tokens.npz"]
    )


async def fail(api: Api, job_id: str) -> None:
    """It fails for want of memory."""
    claim = await claimed(api.state.store, job_id)
    await api.state.store.fail(
        job_id, claim.attempt, job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, "It wanted 9 GiB.", "Use less.")
    )
