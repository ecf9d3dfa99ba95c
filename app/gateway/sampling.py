"""A deployment's own sampling parameters, in the place of those that a request leaves out.

What a request gives stays, also where it is the value that vLLM would have taken. A field that is null is left out, as
OpenAI has it. Beam search does not sample, and is left alone.
"""

from typing import Any, Final

from app.contracts.deployment import Deployment, SamplingDefaults
from app.gateway.errors import invalid

# Verified decoding refuses penalties, and with them what they would promise.
_VERIFIED: Final = frozenset({"temperature", "top_p", "top_k", "min_p"})
# Below it vLLM takes the most probable token.
_GREEDY: Final = 1e-5


def check(body: dict[str, Any], deployment: Deployment) -> None:
    """Raises ApiError (400) where the deployment's temperature makes greedy what asks for several answers.

    A replica would refuse it too, for a temperature that the request does not hold.
    """
    temperature = deployment.sampling.temperature
    several = body.get("n") or 1
    if several == 1 or temperature is None or temperature >= _GREEDY or body.get("use_beam_search"):
        return
    if body.get("temperature") is None:
        raise invalid(
            f"`n` is {several}, and {deployment.name} has temperature {temperature:g} for requests that name none: "
            "greedy decoding gives one answer.",
            "n",
            hint="Give a `temperature` above 0, or leave `n` out; `hemostat deploy set` changes the deployment's "
            "`sampling`.",
        )


def completed(body: dict[str, Any], defaults: SamplingDefaults, *, verified: bool = False) -> dict[str, Any]:
    """The request with the defaults in it; `body` is not changed."""
    if body.get("use_beam_search"):
        return body
    missing = {
        name: value
        for name, value in defaults.model_dump(exclude_none=True).items()
        if body.get(name) is None and (not verified or name in _VERIFIED)
    }
    return body | missing
