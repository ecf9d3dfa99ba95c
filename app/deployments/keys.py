"""Names of the keys that deployments use. `lua/prelude.lua` builds the same names."""

from typing import Final

PREFIX: Final = "hemostat-deployments:"

NAMES: Final = PREFIX + "names"  # hash: name to id
INDEX: Final = PREFIX + "index"  # sorted set, all scores 0: ids, which sort by age
HOSTS: Final = PREFIX + "hosts"  # hash: agents that announced themselves, until their end is noticed
GATEWAY: Final = PREFIX + "gateway"  # string with expiry: the host on which a gateway runs, the last one heard of
TURN: Final = PREFIX + "turn"  # string with expiry: the last change that asked for more memory
DISK: Final = PREFIX + "disk"  # hash: until when samples live, since when their token ids may lie on the server's disk


def deployment(deployment_id: str) -> str:
    """Hash: the record; the values of the contract's fields are JSON."""
    return f"{PREFIX}deployment:{deployment_id}"


def events(deployment_id: str) -> str:
    """Stream: the events; entry ids are 1-0, 2-0, …"""
    return f"{PREFIX}events:{deployment_id}"


def replicas(deployment_id: str) -> str:
    """Hash: replica id to what was last said of its state, until its end is noticed."""
    return f"{PREFIX}replicas:{deployment_id}"


def replica(deployment_id: str, replica_id: str) -> str:
    """String with expiry: the lease of a replica, and all that it says of itself."""
    return f"{PREFIX}replica:{deployment_id}:{replica_id}"


def host(agent: str) -> str:
    """String with expiry: the agent's host and devices."""
    return f"{PREFIX}host:{agent}"


def gateway(loopback: str) -> str:
    """String with expiry: a gateway runs on this loopback interface."""
    return f"{PREFIX}gateway:{loopback}"


def agents(deployment_id: str) -> str:
    """Hash: the agents that have processes of the deployment, until their end is noticed."""
    return f"{PREFIX}agents:{deployment_id}"


def agent(deployment_id: str, agent: str) -> str:
    """String with expiry: what an agent says of the deployment's processes that it runs."""
    return f"{PREFIX}agent:{deployment_id}:{agent}"


def shadow(deployment_id: str) -> str:
    """String: what the shadow process last found."""
    return f"{PREFIX}shadow:{deployment_id}"


def queue(deployment_id: str) -> str:
    """List: ids of the samples that wait, oldest first."""
    return f"{PREFIX}queue:{deployment_id}"


def sample(deployment_id: str, sample_id: str) -> str:
    """String with expiry: one sample, as token ids."""
    return f"{PREFIX}sample:{deployment_id}:{sample_id}"
