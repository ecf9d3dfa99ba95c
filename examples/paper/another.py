"""The claims on a user's model or text: the same jobs, with other names in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.cli.models import DEMO_ALIAS

Json = dict[str, Any]
_SCORED: Final = "evaluation"


@dataclass(frozen=True)
class Subject:
    """What the claims are tested on: the alias of a model, and a text source in place of the shipped evaluation text.
    Other texts of a job stay."""

    model: str = DEMO_ALIAS
    text: Json | None = None

    @property
    def is_demo(self) -> bool:
        """Whether the pages are those of docs/."""
        return self == Subject()

    @property
    def is_small(self) -> bool:
        """Whether the model is the demo's, which is too small to refute a threshold of larger ones."""
        return self.model == DEMO_ALIAS

    def request(self, request: Json) -> Json:
        """A job's request with this model and text."""
        moved: Json = self._moved(request)
        return moved

    def _moved(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self._moved(one) for one in node]
        if not isinstance(node, dict):
            return self.model if node == DEMO_ALIAS else node
        if self.text is not None and node.get("source") == "shipped" and node.get("corpus") == _SCORED:
            return self.text
        return {name: self._moved(value) for name, value in node.items()}
