"""Logging of the worker's processes: to standard error, ours at the level asked for, libraries' warnings only.

What a library says at INFO is not ours to vouch for; it may hold text of a document.
"""

import logging
import sys


def configure_logging(process: str, level: str) -> None:
    """Called once, when a process starts. `process` names it in every line."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format=f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"
    )
    for package in ("workers", "app"):
        logging.getLogger(package).setLevel(level)
    # It says once a second that Redis is away, and then says it with a traceback.
    logging.getLogger("docket.strikelist").setLevel(logging.ERROR)
