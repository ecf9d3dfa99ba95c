"""Every setting of the service, from HEMOSTAT_* environment variables."""

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Where the service keeps what it makes: $XDG_DATA_HOME/hemostat, else ~/.local/share/hemostat."""
    import os

    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hemostat"


class Settings(BaseSettings):
    """Read once at start of a process and passed on; nothing reads the environment elsewhere."""

    model_config = SettingsConfigDict(env_prefix="HEMOSTAT_", frozen=True, ignored_types=(cached_property,))

    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    worker_metrics_port: int = Field(default=8322, ge=0, le=65535)
    home: Path = Field(default_factory=default_home)
    redis_url: str | None = Field(default=None, description="None: the embedded Valkey below `home`.")
    embedded_redis_bytes: int = Field(
        default=512 * 1024**2, ge=8 * 1024**2, description="Memory that the embedded Valkey may use for its data."
    )
    models: Path | None = Field(default=None, description="models.toml; None: `home`/models.toml.")
    text_root: Path | None = Field(
        default=None, description="Folder that file texts must lie in; None: they are refused."
    )
    adapter_root: Path | None = Field(
        default=None, description="Folder that adapters of recipes must lie in; None: they are refused."
    )
    hub_text: str | None = Field(
        default=None, description="Data sets of the hub that texts may come from: ids, separated by commas; None: none."
    )
    hub_text_bytes: int = Field(default=256 * 1024**2, ge=1, description="Bytes that reading one such text may take.")
    hub_token_file: Path | None = Field(
        default=None, description="File with the hub's token for these data sets; None: no token is sent."
    )
    code_execution: bool = Field(
        default=False, description="Whether tasks may run code that models write, in a sandbox without network."
    )
    api_keys_file: Path | None = Field(default=None, description="`hemostat keys` writes it. None: no keys.")

    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    max_queued_jobs: int = Field(default=1000, ge=1)
    owner_max_queued_jobs: int = Field(default=200, ge=1, description="Jobs of one owner of keys that wait.")
    requests_per_minute: int = Field(default=600, ge=1)
    owner_tokens_per_minute: int = Field(default=1_000_000, ge=1, description="Prompts and answers of one owner.")
    owner_max_streams: int = Field(default=100, ge=1, description="Event streams of one owner that are open.")
    job_retention_s: int = Field(default=30 * 24 * 3600, ge=60)
    request_budget_bytes: int = Field(
        default=4 * 1024**3, ge=0, description="Requests of jobs that have not ended, on the disk."
    )
    jobs_budget_bytes: int = Field(
        default=20 * 1024**3, ge=0, description="Reports and artifacts; the owner with most loses its oldest job first."
    )
    checkpoint_budget_bytes: int = Field(default=20 * 1024**3, ge=0)
    reference_budget_bytes: int = Field(default=20 * 1024**3, ge=0)

    max_attempts: int = Field(default=3, ge=1, le=10)
    redelivery_s: float = Field(default=30.0, ge=1)
    cancel_grace_s: float = Field(default=4.0, ge=0.1)
    job_stall_s: float = Field(
        default=1800.0, ge=1, description="How long a job may give no sign of progress before it is ended as stalled."
    )
    start_s: float = Field(default=90.0, gt=0, description="How long API and worker may take to start.")
    api_silence_s: float = Field(
        default=30.0, gt=0, description="How long the API may give no answer before it is killed and started again."
    )
    drain_s: float = Field(default=30.0, ge=0)
    fit_turn_s: float = Field(
        default=30.0,
        ge=0.1,
        description="How long a deployment's own fit has before it makes way for jobs that wait, at first.",
    )
    help_others: bool = Field(
        default=True, description="Whether an idle worker measures points of another one's sweep or surface."
    )
    sse_heartbeat_s: float = Field(default=15.0, gt=0)
    sse_poll_s: float = Field(default=1.0, gt=0, le=2)

    replica_lease_s: float = Field(
        default=10.0, ge=0.2, le=3600, description="A serving process that is silent is gone then."
    )
    replica_renew_s: float = Field(default=2.0, ge=0.02, description="How often it says that it is there.")
    share_serving: float = Field(default=0.25, gt=0, le=1, description="Of a device's memory, for each replica.")
    serving_float32_products: bool = Field(
        default=True,
        description="On a CPU without products of bf16: multiply in float32, several times as fast. False: as vLLM "
        "does, to the last bit.",
    )
    share_shadow: float = Field(default=0.1, ge=0, le=1, description="Of it, for each deployment's shadow process.")
    share_verify: float = Field(default=0.1, gt=0, le=1, description="Of it, for a deployment's verifying process.")
    share_diagnosis: float = Field(default=0.2, ge=0, le=1, description="Of it, for the worker that runs jobs.")
    advertise_host: str | None = Field(
        default=None, description="Name under which other machines reach this one's serving processes; None: loopback."
    )
    deploy_demo: bool = Field(default=True, description="`hemostat up` serves the demo model, calibrated.")
    shadow_queue: int = Field(default=256, ge=1, description="Requests that wait to be scored again, a deployment.")
    shadow_expiry_s: float = Field(
        default=600.0,
        ge=1,
        description="How long their token ids are kept; on the disk of Redis up to twice as long, while an API runs "
        "and Redis does as it asks.",
    )
    shadow_metrics_port: int = Field(default=0, ge=0, le=65535, description="Of a shadow process; 0: any free one.")
    shadow_nice: int = Field(default=10, ge=0, le=19, description="Of a shadow process: serving goes first.")
    shadow_batch: int = Field(default=16, ge=1, description="Requests that are scored again at once.")
    shadow_window: int = Field(default=512, ge=2, description="Scored requests that served divergence speaks of.")
    shadow_window_age_s: float = Field(default=24 * 3600.0, gt=0, description="And how old they may be.")
    shadow_stale_s: float = Field(default=600.0, gt=0, description="Without a scored request so long: stale, at least.")
    shadow_refit_after_tokens: int = Field(default=50_000, ge=1, description="Scored tokens between refits.")
    shadow_refit_fresh: int = Field(default=100, ge=0, description="Scored requests between refits, at least.")
    shadow_refit_tokens: int = Field(default=20_000, ge=64, description="Recent tokens that a refit learns from.")
    shadow_reservoir_tokens: int = Field(default=10_000, ge=0, description="Tokens of the fitting set beside them.")
    shadow_cooldown_s: float = Field(default=3600.0, ge=0, description="A version that failed is not tried so long.")

    verify_context: int = Field(
        default=2048, ge=16, description="Prompt and answer together, in tokens: each block reads all of it again."
    )
    verify_streams: int = Field(default=32, ge=1, le=256, description="Answers that are verified at one time.")
    verify_draws: int = Field(default=2000, ge=500, le=100_000, description="Of the self-test at start.")

    engine_device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$")
    engine_kv_cache_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    engine_batch_tokens: int = Field(default=4096, ge=64)
    batch_invariant: bool = Field(
        default=False,
        description="On a GPU of compute capability 8.0 or higher: a text scores the same in every batch, more slowly.",
    )
    engine_compile: bool = Field(default=False, description="Compiled engines score faster and start a minute later.")

    gateway_max_in_flight: int = Field(default=64, ge=1, description="Requests that a replica answers at one time.")
    gateway_max_queued: int = Field(default=256, ge=0, description="Requests that wait for a replica, a deployment.")
    gateway_owner_share: float = Field(
        default=0.75, gt=0, le=1, description="Of a deployment's places and of its queue, that one owner may hold."
    )
    gateway_owner_grammars: int = Field(
        default=4, ge=1, description="Requests of one owner with a grammar that was not compiled before, at one time."
    )
    gateway_queue_timeout_s: float = Field(default=30.0, gt=0)
    gateway_max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    gateway_connect_timeout_s: float = Field(default=2.0, gt=0)
    gateway_read_timeout_s: float = Field(default=120.0, gt=0, description="Longest silence within a stream.")
    gateway_answer_timeout_s: float = Field(default=900.0, gt=0, description="Longest wait for a whole answer.")
    gateway_write_timeout_s: float = Field(default=60.0, gt=0, description="Longest wait for a slow reader.")

    log_level: str = "INFO"

    @cached_property
    def models_file(self) -> Path:
        """The models.toml in force."""
        return self.models or self.home / "models.toml"

    def job_dir(self, job_id: str) -> Path:
        """Folder of one job: attempt-N/ below it for results, partial/ for what a later attempt resumes from."""
        return self.home / "jobs" / job_id
