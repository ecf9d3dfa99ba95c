"""The published JSON Schemas of the reports, one a kind of job, generated from their contracts.

    python -m app.web.schema --check    # 1 where docs/schemas/hemostat.report-1*.json is not what the contracts give
    python -m app.web.schema --write    # writes them, unless that would break those who read or keep reports

Within `hemostat.report/1` only optional fields may be added. The schema leaves objects open, so that a reader with an
older copy accepts a newer report; the contract itself refuses a field that it does not know.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.contracts.report import SCHEMA
from app.contracts.reports import REPORTS

Json = dict[str, Any]
_FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
PUBLISHED = _FOLDER / "hemostat.report-1.json"
# By kind. The first kind's keeps the name that it was published under.
FILES = {kind: PUBLISHED if kind == "compare" else _FOLDER / f"hemostat.report-1-{kind}.json" for kind in REPORTS}
_CONSTRAINTS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "pattern")


def report_schema(kind: str = "compare") -> Json:
    """JSON Schema (Draft 2020-12) of a report of this kind as the service answers it."""
    generated = REPORTS[kind].model_json_schema(by_alias=True)
    schema: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:hemostat:report:1" + ("" if kind == "compare" else f":{kind}"),
        "title": f"Hemostat report, schema {SCHEMA}" + ("" if kind == "compare" else f", kind {kind}"),
        **{key: value for key, value in _published(generated).items() if key != "title"},
    }
    # They have defaults in the contract, yet every report carries them and readers tell reports apart by them.
    schema["required"] = ["schema", "kind", *generated["required"]]
    return schema


def _published(node: Any, *, names: bool = False) -> Any:
    """Without the closedness of the contract, and without generated titles (`names`: keys are names, not keywords)."""
    if isinstance(node, list):
        return [_published(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _published(value, names=not names and key in {"properties", "$defs"})
        for key, value in node.items()
        if names or not (key == "title" or (key == "additionalProperties" and value is False))
    }


def breaking_changes(old: Json, new: Json) -> list[str]:
    """What in `new` breaks those who read reports by `old`, or keep reports that were valid by it. Empty: nothing.

    A field may be added if it is optional. Nothing may be removed or renamed, become optional or required, change its
    type, unit or set of values, or be allowed less.
    """
    return list(_changes(old, new, old, new, "", frozenset()))


def _changes(old: Json, new: Json, old_root: Json, new_root: Json, at: str, seen: frozenset[str]) -> Iterator[str]:
    reference = str(old.get("$ref", ""))
    if reference in seen:
        return
    seen = seen | {reference} if reference else seen
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    for keyword in ("type", "const", "enum", *_CONSTRAINTS):
        if old.get(keyword) != new.get(keyword):
            yield f"{at or '/'}: {keyword} was {old.get(keyword)!r} and is {new.get(keyword)!r}"
    yield from _property_changes(old, new, old_root, new_root, at, seen)
    for keyword in ("items", "additionalProperties"):
        if isinstance(old.get(keyword), dict):
            if isinstance(new.get(keyword), dict):
                yield from _changes(old[keyword], new[keyword], old_root, new_root, f"{at}/*", seen)
            else:
                yield f"{at or '/'}: {keyword} is gone"
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        before, after = old.get(keyword, []), new.get(keyword, [])
        if len(before) != len(after):
            yield f"{at or '/'}: {keyword} had {len(before)} members and has {len(after)}"
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _changes(one, other, old_root, new_root, f"{at}({index})", seen)


def _property_changes(
    old: Json, new: Json, old_root: Json, new_root: Json, at: str, seen: frozenset[str]
) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    required_before, required_after = set(old.get("required", [])), set(new.get("required", []))
    for name, schema in before.items():
        if name not in after:
            yield f"{at}/{name}: removed or renamed"
            continue
        if name in required_before - required_after:
            yield f"{at}/{name}: was always there and is optional"
        yield from _changes(schema, after[name], old_root, new_root, f"{at}/{name}", seen)
    for name in sorted(required_after - required_before):
        yield f"{at}/{name}: is required, and reports made before lack it"


def _resolved(schema: Json, root: Json) -> Json:
    """The definition that a `$ref` names; what stands beside it stays."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    target: Json = root["$defs"][str(reference).removeprefix("#/$defs/")]
    return target | {key: value for key, value in schema.items() if key != "$ref"}


def text_of(schema: Json) -> str:
    """The file's content."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app.web.schema", description="The published report schema.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write it")
    action.add_argument("--check", action="store_true", help="compare it with the contract")
    parser.add_argument("--kind", choices=list(FILES), help="this kind alone; default: every kind")
    parser.add_argument("--file", type=Path, help="where it stands, of one kind (default: compare)")
    options = parser.parse_args(arguments)
    kinds = [options.kind or "compare"] if options.file or options.kind else list(FILES)
    return max([_one(kind, options.file or FILES[kind], check=options.check) for kind in kinds])


def _one(kind: str, file: Path, *, check: bool) -> int:
    wanted = text_of(report_schema(kind))
    found = file.read_text(encoding="utf-8") if file.is_file() else None
    if found == wanted:
        return 0
    broken = breaking_changes(json.loads(found), report_schema(kind)) if found is not None else []
    for change in broken:
        sys.stderr.write(f"breaks {SCHEMA}: {change}\n")
    if check or broken:
        sys.stderr.write(f"{file} is not what the contract gives\n")
        return 1
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(wanted, encoding="utf-8")
    temporary.replace(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
