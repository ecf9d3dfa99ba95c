"""`hemostat up` with the handlers of `tests.support.handlers`: `python -m tests.support.up`. Says where it is up."""

import sys

from app.contracts.errors import HemostatError
from app.settings import Settings
from app.up import Service, run_up


def ready(service: Service) -> None:
    sys.stdout.write(f"ready {service.url} {service.worker_metrics_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        status = run_up(Settings(), ready=ready, worker_arguments=("--handlers", "tests.support.handlers:HANDLERS"))
    except HemostatError as error:
        sys.exit(f"{error.detail} | {error.hint}")
    sys.exit(status)
