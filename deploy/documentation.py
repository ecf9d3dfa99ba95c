"""What is wrong with the pages: `python -m deploy.documentation` prints it, a test asks for nothing.

Where a check is wrong about a page, `documentation.toml` has an exception with its reason.
"""

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.exposition import generate_latest
from pydantic import TypeAdapter

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import CATALOGUE, HemostatError
from app.contracts.metric import PREFIX
from app.contracts.text import Document, Message
from app.gateway import bounds, options
from app.gateway.errors import ApiError
from app.kinds.registry import kind_of, submissions
from app.models.knobs import lift_knobs
from app.problems import Problem
from app.recipes.recipe import STEPS, Recipe
from app.settings import Settings
from deploy import documented_commands
from deploy.documented_commands import invalid
from deploy.reference import registries
from workers.analysis.threshold.request import parse_request

ROOT: Final = Path(__file__).parents[1]
EXCEPTIONS: Final = Path(__file__).with_suffix(".toml")
MOST_WORDS: Final = 1000  # of a page for users
MOST_WORDS_OF: Final = {"README.md": 900}
MOST_WORDS_IN_ALL: Final = 30_000
MOST_WORDS_A_SENTENCE: Final = 30
RESULTS: Final = "docs/results/"
# Every number on them is from a committed file or from the code.
MADE_BY_CODE: Final = ("docs/reference/", "docs/paper.md", "docs/paper/", "docs/recipes/measured.md")
# Not counted: made from code, tables of results, pages for contributors.
UNCOUNTED: Final = (
    *MADE_BY_CODE,
    RESULTS,
    "docs/contributors/",
    "deploy/runbooks/",
)

BANNED: Final = re.compile(
    r"\b((?:is|are|was|be) (?:told|said)|tells|stands|lies|anew|nobody|whoever|wound\w*|mend\w*|bleed\w*|"
    r"(?:nats?|tokens?|seconds|bytes|bits|passes|requests|steps|windows) an? (?:token|second|minute|weight|window|"
    r"request|step|layer|item|point|position|channel|row|group|block|head|epoch|page))\b",
    re.IGNORECASE,
)
GLOSSARY: Final = "docs/glossary.md"
_MADE: Final = re.compile(r"<!-- made: [\w-]+ -->.*?<!-- end -->", re.DOTALL)
_MEASURED: Final = re.compile(r"\bdemo model\b|\bsimulat", re.IGNORECASE)
_DECIMAL: Final = re.compile(r"(?<![\d.-])\d+\.\d+(?![.\d])")
# A level of an interval is no measured number.
_WITH_UNIT: Final = re.compile(
    r"\d\s?(?:%|(?:nats?|points|s|seconds|minutes|hours|tokens per second|times|GB|MB)\b)(?! (?:intervals?|quantile)\b)"
)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_FENCE: Final = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(?<!\\)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_IMAGE: Final = re.compile(r"""(?:src|srcset)=["']([^"']+)["']""")
_QUOTE: Final = re.compile(r"^```\w+ quote=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BODY: Final = re.compile(r"-d\s+'(.*?)'", re.DOTALL)


def _prose(text: str) -> str:
    """Without code, comments and pictures."""
    without = re.sub(r"(?<=\n\n)(?: {4,}\S[^\n]*\n)+", "", _FENCE.sub("", text))
    return re.sub(r"<!--.*?-->|<[a-z/][^>]*>", "", without, flags=re.DOTALL)


def split(prose: str) -> list[str]:
    """Sentences of paragraphs, list items and cells of tables; links by their text."""
    units: list[str] = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*>|#]|\d+\.) ?)", prose):
        cells = part.split("|") if part.lstrip().startswith("|") else [part]
        units += [" ".join(_LINK.sub(r"\1", cell).split()) for cell in cells]
    return [one for unit in units for one in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\"“])", unit) if one]


@dataclass(frozen=True)
class Page:
    """A file of Markdown."""

    path: str

    @cached_property
    def text(self) -> str:
        """As it is written."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of its blocks of code."""
        return [(language, block) for _, language, block in _FENCE.findall(self.text)]

    @cached_property
    def prose(self) -> str:
        """Without code, comments and pictures."""
        return _prose(self.text)

    @cached_property
    def sentences(self) -> list[str]:
        """Of paragraphs, list items and cells of tables; code and links by their text."""
        return split(self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """Of its headings, as GitHub makes them."""
        found = set(re.findall(r'id="([^"]+)"', self.text))
        for heading in re.findall(r"^#+ (.*)$", _FENCE.sub("", self.text), re.MULTILINE):
            words = _LINK.sub(r"\1", heading).lower()
            slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
            found.add(slug)
        return found


class Fault(NamedTuple):
    """What is wrong, where, and by which check."""

    page: str
    check: str
    what: str


@cache
def pages() -> tuple[Page, ...]:
    """Every page that is checked."""
    files = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "deploy/runbooks").glob("*.md")),
    ]
    return tuple(Page(str(file.relative_to(ROOT))) for file in files)


def words(page: Page) -> int:
    """As `wc -w` counts, without comments; 0 of a page that is not for users."""
    return 0 if page.path.startswith(UNCOUNTED) else len(_COMMENT.sub("", page.text).split())


def length(page: Page) -> Iterator[str]:
    """Pages of too many words."""
    most = MOST_WORDS_OF.get(page.path, MOST_WORDS)
    if words(page) > most:
        yield f"{words(page)} words, more than {most}"


def sentences(page: Page) -> Iterator[str]:
    """Sentences of too many words."""
    for sentence in page.sentences:
        if len(sentence.split()) > MOST_WORDS_A_SENTENCE:
            yield f"{len(sentence.split())} words: {sentence}"


def phrases(page: Page) -> Iterator[str]:
    """Banned words."""
    for sentence in page.sentences:
        for found in BANNED.finditer(re.sub(r"`[^`]*`", "", sentence)):
            yield f"{found[0]!r}: {sentence}"


def terms(page: Page) -> Iterator[str]:
    """Words that are not the glossary's."""
    for sentence in page.sentences:
        for term, other in _other_words().items():
            if found := other.search(re.sub(r"`[^`]*`", "", sentence)):
                yield f"{found[0]!r}, not {term!r}: {sentence}"


@cache
def _rules() -> dict[str, Any]:
    return tomllib.loads(EXCEPTIONS.read_text(encoding="utf-8"))


@cache
def _other_words() -> dict[str, re.Pattern[str]]:
    return {
        term: re.compile(rf"\b(?:{'|'.join(others)})\b", re.IGNORECASE) for term, others in _rules()["terms"].items()
    }


def glossary(page: Page) -> Iterator[str]:
    """Terms of `documentation.toml` that the glossary has not."""
    if page.path == GLOSSARY:
        known = set(re.findall(r"^\| \*\*(.+?)\*\* \|", page.text, re.MULTILINE))
        yield from (f"{term!r} is not explained" for term in sorted(set(_rules()["terms"]) - known))


def measured(page: Page) -> Iterator[str]:
    """Numbers typed by hand that a bench gives (`tests.bench.pages`): those with a unit on a page of results, and all
    of sentences about the demo model or a simulation."""
    if page.path.startswith(MADE_BY_CODE):
        return
    typed = re.sub(r"`[^`]*`", "", _prose(_MADE.sub("", page.text)))
    for sentence in split(typed):
        unit = _WITH_UNIT.search(sentence)
        about = _MEASURED.search(sentence) and (unit or _DECIMAL.search(sentence))
        if about or (unit and page.path.startswith(RESULTS)):
            yield f"a number typed by hand: {sentence}"


def links(page: Page) -> Iterator[str]:
    """Files, pages and headings that do not exist."""
    targets = [target for _, target in _LINK.findall(page.prose)] + _IMAGE.findall(page.text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page.path).parent / path).resolve() if path else ROOT / page.path
        if not file.exists():
            yield f"no file {target}"
        elif anchor and anchor not in Page(str(file.relative_to(ROOT))).anchors:
            yield f"no heading {target}"


def listed(page: Page) -> Iterator[str]:
    """Pages below docs that docs/README.md does not link."""
    index = Page("docs/README.md")
    linked = {os.path.normpath(f"docs/{target.partition('#')[0]}") for _, target in _LINK.findall(index.prose)}
    if page.path not in {"README.md", index.path, *linked} and not page.path.startswith("deploy/"):
        yield f"{index.path} does not link it"


def quotes(page: Page) -> Iterator[str]:
    """Code that is not in the file it is quoted from, word by word."""
    for file, code in _QUOTE.findall(page.text):
        path = ROOT / file
        if not path.is_file() or code not in path.read_text(encoding="utf-8"):
            yield f"not in {file}: {code}"


def commands(page: Page) -> Iterator[str]:
    """What `hemostat` refuses, as it reads its arguments, and recipes that no model takes."""
    blocks = [(line, True) for _, block in page.blocks for line in documented_commands.in_block(block)]
    for line, whole in [*blocks, *((line, False) for line in documented_commands.inline(page.prose))]:
        yield from (f"hemostat {line}: {fault}" for fault in documented_commands.refused(line, whole=whole))


def targets(page: Page) -> Iterator[str]:
    """Targets that the Makefile has not."""
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for _, block in page.blocks:
        yield from (
            f"no make {name}" for name in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE) if name not in known
        )


def bodies(page: Page) -> Iterator[str]:
    """JSON of its blocks: those in JSON, and what a request carries."""
    for language, block in page.blocks:
        yield from [block] if language == "json" else _BODY.findall(block)


def examples(page: Page) -> Iterator[str]:
    """JSON that its model refuses."""
    for body in bodies(page):
        try:
            yield from _not_an_example(json.loads(body))
        except (ValueError, HemostatError) as error:
            yield f"{error}: {body}"


def _not_an_example(value: Any) -> Iterator[str]:
    if isinstance(value, list) or value.get("type") in STEPS:
        yield from invalid(TypeAdapter(Recipe), value if isinstance(value, list) else [value])
    elif "kind" in value:
        kind = kind_of(value["kind"])
        yield from invalid(submissions(), value if kind is None else lift_knobs(value, kind))
    elif {"id", "messages"} <= set(value) or {"id", "text"} <= set(value):
        yield from invalid(Document, value)
    elif {"name", "model", "reference"} <= set(value):
        yield from invalid(DeploymentRequest, value)
    elif str(value.get("type", "")).startswith("/errors/"):
        yield from invalid(Problem, value)
    elif "points" in value:
        parse_request(json.dumps(value))
    elif "messages" in value:
        yield from _not_a_chat(value)
    else:
        yield f"no model is known for {json.dumps(value)}"


def _not_a_chat(body: dict[str, Any]) -> Iterator[str]:
    """vLLM checks the fields that are not named here."""
    try:
        options.take(body)
        bounds.check(body)
    except ApiError as error:
        yield str(error)
    for message in body["messages"]:
        yield from invalid(Message, message)


@cache
def _settings() -> frozenset[str]:
    compose = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("docker-compose*.yml"))
    client = {"HEMOSTAT_URL", "HEMOSTAT_API_KEY"}
    return frozenset({f"HEMOSTAT_{name.upper()}" for name in Settings.model_fields} | client) | frozenset(
        re.findall(r"HEMOSTAT_\w+", compose)
    )


@cache
def metrics() -> frozenset[str]:
    """Names of series that a process exports."""
    parts = ("", "_bucket", "_sum", "_count")
    return frozenset(
        name + part for name, kind in families().items() for part in (parts if kind == "histogram" else ("",))
    )


@cache
def families() -> dict[str, str]:
    """Name and type of each metric that a process exports."""
    exported = "".join(generate_latest(registry).decode() for registry in registries().values())
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", exported, re.MULTILINE))


def names(page: Page) -> Iterator[str]:
    """Settings and metrics that do not exist."""
    for name in set(re.findall(r"\bHEMOSTAT_[A-Z0-9_]+\b", page.text)) - _settings():
        yield f"no setting {name}"
    for name in set(re.findall(r"\bhemostat_[a-z0-9_]+\b(?!\*)", page.text)) - metrics():
        yield f"no metric {name}"


def unnamed() -> list[str]:
    """Settings, metrics and codes of errors that no page names."""
    text = "\n".join(page.text for page in pages())
    every = {*_settings(), *CATALOGUE, *(name for name in families() if name.startswith(PREFIX))}
    return sorted(name for name in every if not re.search(rf"\b{name}\b", text))


Check = Callable[[Page], Iterator[str]]
CHECKS: Final[tuple[Check, ...]] = (
    *(length, sentences, phrases, terms, glossary, measured, links, listed, quotes, commands, targets, examples, names),
)


def faults() -> list[Fault]:
    """All that is wrong and no exception allows, and exceptions that allow nothing."""
    found = [
        Fault(page.path, check.__name__, " ".join(what.split()))
        for page in pages()
        for check in CHECKS
        for what in check(page)
    ]
    total = sum(map(words, pages()))
    if total > MOST_WORDS_IN_ALL:
        found.append(Fault("docs", "length", f"{total} words in all, more than {MOST_WORDS_IN_ALL}"))
    found += [Fault("docs", "names", f"no page names {name}") for name in unnamed()]
    allowed = _rules()["allowed"]
    used = [any(_allows(one, fault) for fault in found) for one in allowed]
    left = [fault for fault in found if not any(_allows(one, fault) for one in allowed)]
    return left + [
        Fault(one["page"], one["check"], f"the exception {one.get('text', '')!r} is not needed")
        for one, needed in zip(allowed, used, strict=True)
        if not needed
    ]


def _allows(exception: dict[str, str], fault: Fault) -> bool:
    return (
        (exception["page"], exception["check"]) == (fault.page, fault.check)
        and exception.get("text", "") in fault.what
        and bool(exception["reason"])
    )


def report(found: Iterable[Fault]) -> str:
    """A line for each fault."""
    return "\n".join(f"{fault.page}: {fault.check}: {fault.what}" for fault in found)


if __name__ == "__main__":
    wrong = faults()
    total = sum(map(words, pages()))
    print(report(wrong), f"{total} words, {len(wrong)} faults", sep="\n")  # noqa: T201 - its purpose
    sys.exit(bool(wrong))
