"""What an agent says: of itself and its devices, and of a deployment's processes."""

from pydantic import ConfigDict, Field

from app.contracts.base import Contract


class Device(Contract):
    """A GPU by its number in nvidia-smi, or `cpu`; its memory in bytes."""

    model_config = ConfigDict(extra="ignore")

    id: str
    bytes: int = 0


class HostReport(Contract):
    """Kept in Redis with a lease: where an agent starts processes. `names`: the deployments that it runs; none: all.
    `reached`: whether the gateway reaches the processes there.

    Agents of one `host` share its devices. `machine` is the same for all containers of one machine, `loopback` for all
    processes that share a loopback interface; empty: not known.
    """

    model_config = ConfigDict(extra="ignore")  # an agent of a later version may say more

    agent: str
    host: str
    machine: str = ""
    loopback: str = ""
    devices: tuple[Device, ...]
    names: tuple[str, ...] = ()
    reached: bool = True


class AgentReport(Contract):
    """Kept in Redis with a lease: how many processes run, and what is wrong where something is.

    `places`: the processes (`serve-0`, `shadow`, `verify`) that the agent has taken, each with its devices on `host`; a
    place has one agent at a time. `fault` is text for people, at most a few log lines; `failed`: the agent has tried
    often enough to call it that.
    """

    model_config = ConfigDict(extra="ignore")

    agent: str = "agent"
    host: str = ""
    places: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    processes: int = 0
    fault: str = ""
    failed: bool = False
