"""The server process of a replica: vLLM's own OpenAI server, whole, with our plugin.

python -m workers.engine.serving.server --parent PID -- ARGUMENTS OF VLLM
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence

import uvicorn.config

from workers.engine import vllm_names as vllm
from workers.engine.isolation import quiet_vllm
from workers.engine.serving.plugin import end_with_parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Runs until SIGTERM; dies with `--parent`."""
    parser = argparse.ArgumentParser(prog="python -m workers.engine.serving.server")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    end_with_parent()
    if os.getppid() != options.parent:
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold prompts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    sys.argv = ["vllm", *rest]
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "app.protocol:BoundedProtocol"
    with quiet_vllm():
        vllm.serve()


if __name__ == "__main__":
    main()
