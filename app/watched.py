"""The API as a container runs it: `python -m app.watched`.

It ends with the API, and kills one that gives no answer any more. A health check alone restarts nothing: with this the
container ends, and its restart policy starts it again.
"""

import sys
import time

from app.secrets import hide_memory
from app.settings import Settings
from app.supervisor import MARGIN_S, TEND_S, Interruptions, Supervisor, api_program


def main() -> int:
    """Entry point. Answers the exit status of the API; 128 and the number of the signal that ended it."""
    hide_memory()
    settings = Settings()
    program = api_program(settings, None)
    supervisor = Supervisor([program], lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201 - the container's log
    with Interruptions() as interruptions:
        supervisor.start()
        while program.running and not interruptions.count:
            supervisor.kill_hung()
            time.sleep(TEND_S)
        supervisor.stop([program], settings.drain_s + MARGIN_S, interruptions)
    status = program.process.returncode if program.process is not None else 1
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
