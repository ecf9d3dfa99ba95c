"""What `workers.serve` gives the processes of a server, in one file that an environment variable names."""

import os
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.deployments.secret import App, SecretGuard

VARIABLE: Final = "HEMOSTAT_SERVING"
LOOPBACK: Final = "127.0.0.1"
GUARD: Final = f"{__name__}.Guard"
OPEN: Final = frozenset({"/health", "/metrics", "/metrics/"})


class ServingConfig(BaseModel):
    """One replica, as its engine process sees it. Paths are absolute.

    `versions_file` names the calibration versions that are to be loaded; `door_file` is where the engine process writes
    the port of its door. `fingerprint` is that of the served checkpoint: a profile that was fitted for another one is
    refused. `single_rows_apart`: a row that comes alone is multiplied with 16-bit weights of its own, if the processor
    multiplies in float32 (`workers.engine.mending`). Without `float32_products` every product is that of vLLM.
    `hidden_bytes` bounds the kept hidden states of the whole folder, `hidden_expiry_s` their age. `secret` is asked of
    anyone who calls; "" on loopback alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: str
    architecture: str
    fingerprint: str = ""
    single_rows_apart: bool = False
    float32_products: bool = True
    profiles: Path
    versions_file: Path
    hidden: Path
    hidden_expiry_s: float = Field(default=600.0, gt=0)
    hidden_bytes: int = Field(default=1 << 30, ge=0)
    door_host: str = LOOPBACK
    door_port: int = 0
    door_file: Path
    secret: str = Field(default="", repr=False)

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.door_host != LOOPBACK and not self.secret:
            raise ValueError("what other machines can reach needs a secret")
        return self

    @classmethod
    def from_environment(cls) -> Self | None:
        """That of this process; None if it is not a server of ours. ValueError if the file is not one."""
        file = os.environ.get(VARIABLE)
        return cls.model_validate_json(Path(file).read_bytes()) if file else None


class Guard(SecretGuard):
    """The guard of vLLM's HTTP side: nothing but its health and its counters without the internal secret.

    vLLM's own `--api-key` guards what begins with /v1 alone, and not `/tokenize`, `/invocations` and their like. vLLM
    gives middleware nothing but the application. Raises ValueError without a secret.
    """

    def __init__(self, app: App) -> None:
        config = ServingConfig.from_environment()
        if config is None or not config.secret:
            raise ValueError("the server is to be guarded, and there is no secret")
        super().__init__(app, secret=config.secret, without=OPEN)
