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

    host: str = Field(default="127.0.0.1", description="Address of API and worker metrics.")
    port: int = Field(default=8321, ge=0, le=65535, description="Port of the API; 0: any.")
    worker_metrics_port: int = Field(default=8322, ge=0, le=65535, description="Port of the worker's metrics; 0: any.")
    home: Path = Field(default_factory=default_home, description="Folder of all data.")
    redis_url: str | None = Field(default=None, description="Redis or Valkey; none: the embedded one.")
    embedded_redis_bytes: int = Field(
        default=512 * 1024**2, ge=8 * 1024**2, description="Memory for data of the embedded Valkey."
    )
    models: Path | None = Field(
        default=None, description="Path of models.toml; none: `models.toml` in the home folder."
    )
    text_root: Path | None = Field(
        default=None, description="Folder of file texts and task files; none: they are refused."
    )
    adapter_root: Path | None = Field(
        default=None, description="Folder of adapters in recipes; none: they are refused."
    )
    hub_text: str | None = Field(
        default=None,
        description="Hub data sets allowed as texts: ids with commas; none: no data set. `HF_ENDPOINT` names "
        "another hub. A proxy is not used.",
    )
    hub_text_bytes: int = Field(default=256 * 1024**2, ge=1, description="Largest text from the hub.")
    hub_token_file: Path | None = Field(
        default=None,
        description="File with the hub token for these data sets; none: no token is sent, whatever `HF_TOKEN` is.",
    )
    code_execution: bool = Field(
        default=False, description="Whether tasks run code that models write, in a sandbox without network."
    )
    api_keys_file: Path | None = Field(
        default=None, description="Key file, written by `hemostat keys`; none: no keys, loopback only."
    )

    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, description="Largest request body.")
    max_queued_jobs: int = Field(default=1000, ge=1, description="Waiting jobs.")
    owner_max_queued_jobs: int = Field(default=200, ge=1, description="Waiting jobs per owner.")
    requests_per_minute: int = Field(default=600, ge=1, description="Requests per owner; without keys, per address.")
    owner_tokens_per_minute: int = Field(
        default=1_000_000, ge=1, description="Tokens of prompts and answers per owner."
    )
    owner_max_streams: int = Field(default=100, ge=1, description="Open event streams per owner.")
    job_retention_s: int = Field(
        default=30 * 24 * 3600, ge=60, description="How long an ended job is kept, counted while the service runs."
    )
    request_budget_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        description="Disk for requests of jobs that have not ended; one owner gets at most half.",
    )
    jobs_budget_bytes: int = Field(
        default=20 * 1024**3,
        ge=0,
        description="Disk for reports and artifacts. Beyond it, the owner with the most loses the job that ended "
        "first.",
    )
    checkpoint_budget_bytes: int = Field(default=20 * 1024**3, ge=0, description="Disk for modified checkpoints.")
    reference_budget_bytes: int = Field(default=20 * 1024**3, ge=0, description="Disk for references.")

    max_attempts: int = Field(default=3, ge=1, le=10, description="Workers that a job may lose before it fails.")
    redelivery_s: float = Field(default=30.0, ge=1, description="Silence after which a worker loses its job.")
    cancel_grace_s: float = Field(default=4.0, ge=0.1, description="Time that a cancelled job has to stop.")
    job_stall_s: float = Field(
        default=1800.0,
        ge=1,
        description="Time without progress before a job is `stalled`, plus 1 s per 50 MB of model files. Starting "
        "an engine counts as one step.",
    )
    start_s: float = Field(default=90.0, gt=0, description="Time that API and worker have to start.")
    api_silence_s: float = Field(default=30.0, gt=0, description="Silence after which the API is killed and restarted.")
    drain_s: float = Field(default=30.0, ge=0, description="Time that a running job has at shutdown.")
    fit_turn_s: float = Field(
        default=30.0, ge=0.1, description="First turn of a deployment's own fit; then it gives way to waiting jobs."
    )
    help_others: bool = Field(
        default=True, description="Whether an idle worker helps with points of another worker's sweep or surface."
    )
    sse_heartbeat_s: float = Field(
        default=15.0, gt=0, description="Silence after which an event stream sends a comment."
    )
    sse_poll_s: float = Field(
        default=1.0, gt=0, le=2, description="Longest wait for Redis per poll of an event stream."
    )

    replica_lease_s: float = Field(
        default=10.0, ge=0.2, le=3600, description="Silence after which a serving process counts as gone."
    )
    replica_renew_s: float = Field(
        default=2.0, ge=0.02, description="Interval between heartbeats of a serving process."
    )
    share_serving: float = Field(default=0.25, gt=0, le=1, description="Share of device memory per replica.")
    serving_float32_products: bool = Field(
        default=True,
        description="On CPUs without bf16 products: multiply in float32, several times as fast. `false`: "
        "bit-identical to vLLM.",
    )
    share_shadow: float = Field(default=0.1, ge=0, le=1, description="Share of device memory per shadow process.")
    share_verify: float = Field(default=0.1, gt=0, le=1, description="Share of device memory per verifying process.")
    share_diagnosis: float = Field(default=0.2, ge=0, le=1, description="Share of each device's memory for the worker.")
    advertise_host: str | None = Field(
        default=None, description="Name under which other machines reach serving processes; none: loopback."
    )
    deploy_demo: bool = Field(default=True, description="Whether `hemostat up` serves the demo model.")
    shadow_queue: int = Field(default=256, ge=1, description="Requests that wait for scoring, per deployment.")
    shadow_expiry_s: float = Field(
        default=600.0,
        ge=1,
        description="How long Redis holds token ids of these requests; on its disk up to twice as long.",
    )
    shadow_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Port of a shadow process' metrics; 0: any."
    )
    shadow_nice: int = Field(default=10, ge=0, le=19, description="Nice value of a shadow process, 0 to 19.")
    shadow_batch: int = Field(default=16, ge=1, description="Requests scored per batch.")
    shadow_window: int = Field(default=512, ge=2, description="Scored requests in the served divergence.")
    shadow_window_age_s: float = Field(
        default=24 * 3600.0, gt=0, description="Largest age of requests in the served divergence."
    )
    shadow_stale_s: float = Field(
        default=600.0, gt=0, description="Least time without a scored request before the state is `stale`."
    )
    shadow_refit_after_tokens: int = Field(default=50_000, ge=1, description="Scored tokens between refits.")
    shadow_refit_fresh: int = Field(default=100, ge=0, description="Least scored requests between refits.")
    shadow_refit_tokens: int = Field(default=20_000, ge=64, description="Recent tokens per refit.")
    shadow_reservoir_tokens: int = Field(
        default=10_000, ge=0, description="Tokens of the fitting set that a refit adds."
    )
    shadow_cooldown_s: float = Field(default=3600.0, ge=0, description="How long a failed version is not tried again.")

    verify_context: int = Field(default=2048, ge=16, description="Prompt and answer of a verified request, in tokens.")
    verify_streams: int = Field(default=32, ge=1, le=256, description="Verified answers at one time.")
    verify_draws: int = Field(
        default=2000,
        ge=500,
        le=100_000,
        description="Draws of the self-test; its second part takes half. Fewer prove less.",
    )

    engine_device: str = Field(default="auto", pattern="^(auto|cpu|cuda)$", description="`auto`, `cpu` or `cuda`.")
    tensor_parallel_size: int = Field(
        default=1, ge=1, description="Parts that each layer is split into, one per device."
    )
    pipeline_parallel_size: int = Field(
        default=1, ge=1, description="Groups that the layers are split into for scoring; replicas have one."
    )
    engine_executor: str = Field(
        default="mp", pattern="^(mp|ray)$", description="`mp`: the devices of this host. `ray`: those of several hosts."
    )
    engine_kv_cache_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024, description="Cache of the engine.")
    engine_batch_tokens: int = Field(default=4096, ge=64, description="Tokens per batch.")
    batch_invariant: bool = Field(
        default=False,
        description="On GPUs of compute capability 8.0 or higher: a text scores the same in every batch, more slowly.",
    )
    engine_compile: bool = Field(default=False, description="Compiled engines score faster and start a minute later.")

    gateway_max_in_flight: int = Field(default=64, ge=1, description="Requests at one time per replica.")
    gateway_max_queued: int = Field(default=256, ge=0, description="Waiting requests per deployment; beyond it 429.")
    gateway_owner_share: float = Field(
        default=0.75, gt=0, le=1, description="Share of places and queue that one owner may hold."
    )
    gateway_owner_grammars: int = Field(
        default=4, ge=1, description="Requests per owner, at one time, with a grammar new to the deployment."
    )
    gateway_queue_timeout_s: float = Field(default=30.0, gt=0, description="Longest wait in the queue; then 503.")
    gateway_max_body_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="Largest body of an OpenAI route."
    )
    gateway_connect_timeout_s: float = Field(default=2.0, gt=0, description="Time to connect to a replica.")
    gateway_read_timeout_s: float = Field(default=120.0, gt=0, description="Longest silence within a stream.")
    gateway_answer_timeout_s: float = Field(
        default=900.0, gt=0, description="Longest wait for an answer that is not streamed."
    )
    gateway_write_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest wait for a client that does not read."
    )

    log_level: str = Field(default="INFO", description="Level of the logs.")

    @cached_property
    def models_file(self) -> Path:
        """The models.toml in force."""
        return self.models or self.home / "models.toml"

    @property
    def ranks(self) -> int:
        """Processes over which an engine that scores a model is split."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def job_dir(self, job_id: str) -> Path:
        """Folder of one job: attempt-N/ below it for results, partial/ for what a later attempt resumes from."""
        return self.home / "jobs" / job_id
