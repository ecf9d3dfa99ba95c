"""What the agent says of a deployment's processes."""

from pydantic import ConfigDict

from app.contracts.base import Contract


class AgentReport(Contract):
    """Kept in Redis with a lease: how many processes run, and what is wrong where something is.

    `agent` distinguishes agents: one has a deployment at a time. `fault` is text for people, at most a few log lines;
    `failed`: the agent has tried often enough to call it that.
    """

    model_config = ConfigDict(extra="ignore")  # an agent of a later version may say more

    agent: str = "agent"
    processes: int = 0
    fault: str = ""
    failed: bool = False
