"""A deployment's own sampling parameters, in the place of those that a request leaves out.

What a request gives stays, also where it is the value that vLLM would have taken. A field that is null is left out, as
OpenAI has it. Beam search does not sample, and is left alone.
"""

from typing import Any, Final

from app.contracts.deployment import SamplingDefaults

# Verified decoding refuses penalties, and with them what they would promise.
_VERIFIED: Final = frozenset({"temperature", "top_p", "top_k", "min_p"})


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
