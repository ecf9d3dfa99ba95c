"""`hemostat up` with the handlers of `tests.support.handlers`: `python -m tests.support.up`. Says where it is up.

HEMOSTAT_TEST_DEPLOYMENT: a deployment request as JSON, which it makes; its processes are those of
`tests.support.serving`.
"""

import os
import sys

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import HemostatError
from app.settings import Settings
from app.up import Service, run_up

SERVING = ("--serve-module", "tests.support.serving", "--shadow-module", "tests.support.serving")


def ready(service: Service) -> None:
    sys.stdout.write(f"ready {service.url} {service.worker_metrics_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = os.environ.get("HEMOSTAT_TEST_DEPLOYMENT")
    try:
        status = run_up(
            Settings(),
            ready=ready,
            worker_arguments=("--handlers", "tests.support.handlers:HANDLERS"),
            agent_arguments=SERVING,
            deployment=DeploymentRequest.model_validate_json(given) if given else None,
        )
    except HemostatError as error:
        sys.exit(f"{error.detail} | {error.hint}")
    sys.exit(status)
