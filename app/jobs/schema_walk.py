"""Which place of a JSON document a fault is at, and which names are valid there, by its JSON schema."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

# How pydantic ends the location of a name that is not taken.
_OF_NAME: Final = "[key]"


class Place(NamedTuple):
    """A place of a document; `of_name`: what is there is at fault for its name, not for its value."""

    path: tuple[str | int, ...]
    of_name: bool = False


class Schema:
    """A JSON schema as pydantic writes it: local references, `anyOf` for null, `oneOf` with a discriminator."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema

    def fields(self, path: Sequence[str | int], data: Any) -> list[str]:
        """Names of the properties that the object at `path` of `data` may have; [] where it may have any."""
        return sorted(self._node(path, data).get("properties", {}))

    def at(self, path: Sequence[str | int], data: Any) -> dict[str, Any]:
        """The schema of the value at `path`, null left out of a union with it; {} where there is none."""
        try:
            return self._node(path, data)
        except (KeyError, TypeError, AttributeError):
            return {}

    def names(self, path: Sequence[str | int], data: Any) -> dict[str, Any]:
        """The schema of the names of the object at `path`, where they are free but for their form."""
        node = self.at(path, data)
        patterns = list(node.get("patternProperties", {}))
        form = {"pattern": patterns[0]} if patterns else {}
        return {"type": "string", **node.get("propertyNames", {}), **form}

    def tags(self, path: Sequence[str | int], data: Any) -> list[str]:
        """Values of the discriminator of the union at `path`."""
        return sorted(self._discriminator(path, data).get("mapping", {}))

    def tag_name(self, path: Sequence[str | int], data: Any) -> str:
        """The field by which the union at `path` tells its members apart; "" where there is no such union."""
        return str(self._discriminator(path, data).get("propertyName", ""))

    def place(self, loc: Sequence[str | int], data: Any) -> Place:
        """The place in `data` that pydantic's location `loc` means.

        Inside a union that a tag tells apart, pydantic puts the tag between the names of fields. A tag may be called
        as a field of its member is, so that only the schema says which of the two a part is.
        """
        path: list[str | int] = []
        node, here, free = self._root, data, False
        for part in loc:
            union = self._choice(node, here, keep_union=True)
            if "discriminator" in union:
                node = self._choice(union, here)
                continue
            if part == _OF_NAME and free:
                return Place(tuple(path), of_name=True)
            if isinstance(here, dict | list):
                path.append(part)
                free = isinstance(here, dict) and "properties" not in union
                node, here = _step(union, part), _inner(here, part)
        return Place(tuple(path))

    def _discriminator(self, path: Sequence[str | int], data: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._choice(self._parent(path, data), None, keep_union=True).get("discriminator", {})
        return found

    def _node(self, path: Sequence[str | int], data: Any) -> dict[str, Any]:
        node, here = self._choice(self._root, data), data
        for part in path:
            here = _inner(here, part)
            node = self._choice(_step(node, part), here)
        return node

    def _parent(self, path: Sequence[str | int], data: Any) -> dict[str, Any]:
        holder = data
        for part in path[:-1]:
            holder = _inner(holder, part)
        return _step(self._node(path[:-1], data), path[-1]) if path else self._root

    def _choice(self, node: dict[str, Any], value: Any, *, keep_union: bool = False) -> dict[str, Any]:
        """The schema that applies to `value`: references resolved, the branch of a union chosen by its tag."""
        while True:
            if "$ref" in node:
                node = self._root["$defs"][node["$ref"].rpartition("/")[2]]
            elif "anyOf" in node:
                node = next((branch for branch in node["anyOf"] if branch.get("type") != "null"), {})
            elif "discriminator" in node and not keep_union:
                rule = node["discriminator"]
                tag = value.get(rule["propertyName"]) if isinstance(value, dict) else None
                reference = rule["mapping"].get(tag) if isinstance(tag, str) else None
                node = {"$ref": reference} if reference else {}
            else:
                return node


def _step(node: dict[str, Any], part: str | int) -> dict[str, Any]:
    if isinstance(part, int):
        inner = node.get("items", {})
    else:
        free = [*node.get("patternProperties", {}).values(), node.get("additionalProperties", {})][0]
        inner = node.get("properties", {}).get(part, free)
    return inner if isinstance(inner, dict) else {}


def _inner(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None
