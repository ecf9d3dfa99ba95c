"""`hemostat serve`: the processes of deployments, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from app.cli.configuration import settings
from app.cli.demo import RECIPE
from app.cli.models import DEMO_ALIAS, ensure_demo_model
from app.cli.output import err
from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import HemostatError
from app.deployments.agent import run_agent
from app.settings import Settings


def serve(
    names: Annotated[list[str] | None, typer.Argument(help="Deployments to run; default: all.")] = None,
    *,
    shadow: Annotated[bool, typer.Option("--shadow/--no-shadow", help="Score served traffic again.")] = True,
) -> None:
    """Run the processes of deployments: replicas, shadow, verification. Ctrl-C drains all of them.

    `hemostat up` does this too; use this command if the API runs elsewhere.
    """
    configured = settings()

    def say(text: str) -> None:
        err.print(text, markup=False, soft_wrap=True)

    raise SystemExit(run_agent(configured, say, names=names or (), shadow=shadow))


def demo_deployment(settings: Settings) -> DeploymentRequest | None:
    """The demo model at 4 bits, which `hemostat up` serves; the model is built unless it is there.

    None, with the reason said, where it cannot be built: the service is worth having without it.
    """
    try:
        ensure_demo_model(settings)
    except HemostatError as error:
        err.print(f"the demo model is not served: {escape(error.detail)}", soft_wrap=True)
        return None
    return demo_request()


def demo_request() -> DeploymentRequest:
    """What `demo_deployment` serves. Every request is scored again, so that a few by hand show the served KL."""
    return DeploymentRequest.model_validate(
        {
            "name": f"{DEMO_ALIAS}-rtn4",
            "model": {"model": DEMO_ALIAS, "recipe": [RECIPE]},
            "reference": {"model": DEMO_ALIAS},
            "shadow_rate": 1.0,
            "metadata": {"origin": "demo"},
        }
    )
