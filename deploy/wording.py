"""What is wrong with the words of the code: `python -m deploy.wording` prints it, a part of `make lint`.

Read are docstrings, and texts of at least three words: help, errors, messages. A room is a folder of app or workers.
`wording.toml` has the number of old faults that each room still holds. More are refused, and fewer are written there by
`python -m deploy.wording --lower`. Where a check is wrong, an exception with its reason is there.
"""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from deploy.documentation import BANNED, MOST_WORDS_A_SENTENCE, ROOT, split

KEPT: Final = Path(__file__).with_suffix(".toml")
NAMES: Final = frozenset({"Shop", "Ward", "Wound", "Desk", "Scribe", "Book", "Door", "Patient"})
FEWEST_WORDS: Final = 3


class Fault(NamedTuple):
    """What is wrong, in which line of which file, and by which check."""

    file: str
    line: int
    check: str
    what: str

    @property
    def room(self) -> str:
        """Its folder; the file, if it is in none."""
        return "/".join(self.file.split("/")[:2])

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.check}: {self.what}"


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each literal; what a formatted one fills in is one word."""
    parts: set[int] = set()
    for node in ast.walk(tree):  # a formatted text comes before its parts
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value


def faults_of(file: str, source: str) -> Iterator[Fault]:
    """All faults of a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in NAMES:
            yield Fault(file, node.lineno, "names", f"class {node.name}")
    for line, text in texts(tree):
        for sentence in split(text) if len(text.split()) >= FEWEST_WORDS else ():
            if len(sentence.split()) > MOST_WORDS_A_SENTENCE:
                yield Fault(file, line, "sentences", f"{len(sentence.split())} words: {sentence}")
            for found in BANNED.finditer(re.sub(r"`[^`]*`", "", sentence)):
                yield Fault(file, line, "phrases", f"{found[0]!r}: {sentence}")


def faults(allowed: list[dict[str, str]]) -> list[Fault]:
    """All faults of app and workers that no exception allows."""
    files = sorted(file for room in ("app", "hemostat", "workers") for file in (ROOT / room).rglob("*.py"))
    found = [
        fault for file in files for fault in faults_of(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    ]
    return [
        fault
        for fault in found
        if not any(fault.file == one["file"] and one["text"] in fault.what and one["reason"] for one in allowed)
    ]


def over(found: list[Fault], most: dict[str, dict[str, int]]) -> list[str]:
    """A line for each room with more faults of a check than it may have, followed by these faults."""
    told: list[str] = []
    for (check, room), count in sorted(Counter((fault.check, fault.room) for fault in found).items()):
        limit = most.get(check, {}).get(room, 0)
        if count > limit:
            told.append(f"{room}: {count} faults of {check}, at most {limit} are allowed:")
            told += [f"  {fault}" for fault in found if (fault.check, fault.room) == (check, room)]
    return told


def lowered(text: str, found: list[Fault], most: dict[str, dict[str, int]]) -> str:
    """The text of `wording.toml` with the counts of today, if these are lower."""
    counts = Counter((fault.check, fault.room) for fault in found)
    head = text[: text.index("[most.")]
    for check, rooms in sorted(most.items()):
        kept = {room: min(limit, counts[check, room]) for room, limit in sorted(rooms.items())}
        head += f"[most.{check}]\n" + "".join(f'"{room}" = {count}\n' for room, count in kept.items() if count) + "\n"
    return head.rstrip("\n") + "\n"


if __name__ == "__main__":
    kept = KEPT.read_text(encoding="utf-8")
    rules = tomllib.loads(kept)
    now = faults(rules.get("allowed", []))
    if "--lower" in sys.argv[1:]:
        KEPT.write_text(lowered(kept, now, rules["most"]), encoding="utf-8")
    wrong = over(now, rules["most"])
    print(*wrong, f"{len(now)} faults, {len(wrong)} lines of new ones", sep="\n")  # noqa: T201 - its purpose
    sys.exit(bool(wrong))
