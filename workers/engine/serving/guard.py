"""The guard of vLLM's HTTP side: nothing but its health and its counters without the internal secret.

vLLM's own `--api-key` guards what begins with /v1 alone, and not `/tokenize`, `/invocations` and their like.
"""

from __future__ import annotations

from typing import Final

from app.deployments.secret import App, SecretGuard
from workers.engine.serving.config import ServingConfig

PATH: Final = f"{__name__}.Guard"
OPEN: Final = frozenset({"/health", "/metrics", "/metrics/"})


class Guard(SecretGuard):
    """Made by vLLM, which gives middleware nothing but the application. ValueError where no one said the secret."""

    def __init__(self, app: App) -> None:
        config = ServingConfig.from_environment()
        if config is None or not config.secret:
            raise ValueError("the server is to be guarded, and there is no secret")
        super().__init__(app, secret=config.secret, without=OPEN)
