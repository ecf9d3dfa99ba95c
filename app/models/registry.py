"""models.toml: which aliases there are and what is behind them. Requests name aliases only.

[models.smollm2-135m]
# A folder; relative paths start at the file itself.
path = "checkpoints/smollm2-135m"

[models.llama-8b]
# From the local hub cache.
hub = "meta-llama/Llama-3.1-8B"
revision = "d04e592bb4f6aa9cfee91e2e20afa771667e1d4b"
# Another tokenizer folder; default: the checkpoint's own.
tokenizer = "tokenizers/llama-3"
# auto, bfloat16, float16 or float32; default bfloat16
dtype = "bfloat16"
# GPUs per layer, and groups of layers; default: HEMOSTAT_TENSOR_PARALLEL_SIZE, HEMOSTAT_PIPELINE_PARALLEL_SIZE
tensor_parallel_size = 4
pipeline_parallel_size = 1
"""

import fcntl
import json
import os
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from app.models.nearest import suggestion
from app.settings import Settings

ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*")
SIZES = ("tensor_parallel_size", "pipeline_parallel_size")
FIELDS = ("path", "hub", "revision", "tokenizer", "dtype", *SIZES)
DTYPES = ("auto", "bfloat16", "float16", "float32")


class Snapshot(NamedTuple):
    """A model of the hub at a commit, branch or tag."""

    hub_id: str
    revision: str


@dataclass(frozen=True)
class ModelEntry:
    """What is behind an alias: a local folder (`path`), or a hub id with a revision. `sizes` are those of `SIZES` that
    the file gives."""

    alias: str
    path: Path | None
    hub_id: str | None = None
    revision: str | None = None
    tokenizer: Path | None = None
    dtype: str = "bfloat16"
    sizes: tuple[tuple[str, int], ...] = ()

    @property
    def target(self) -> Path | Snapshot:
        """What the alias leads to."""
        return self.path or Snapshot(self.hub_id or "", self.revision or "")

    def shown(self) -> dict[str, str]:
        """For lists: the alias, where it leads, and the dtype."""
        return {"alias": self.alias, "from": str(self.path or self.hub_id), "dtype": self.dtype}

    def checkpoint_path(self, *, pointer: str = "") -> Path:
        """The local folder; absent, it raises `HemostatError(CHECKPOINT_NOT_FOUND)` that says how to get it."""
        if self.path is not None:
            if not self.path.is_dir():
                raise HemostatError(
                    ErrorCode.CHECKPOINT_NOT_FOUND,
                    f"model {self.alias!r}: there is no folder {self.path}",
                    hint=f"put the checkpoint there, or correct models.{self.alias}.path in models.toml",
                    pointer=pointer,
                )
            return self.path
        assert self.hub_id is not None and self.revision is not None  # noqa: S101 - load_registry sees to it
        found = in_hub_cache(self.hub_id, self.revision)
        if found is None:
            raise HemostatError(
                ErrorCode.CHECKPOINT_NOT_FOUND,
                f"model {self.alias!r}: {self.hub_id} at {self.revision} is not in the local hub cache",
                hint=f"fetch it: hf download {self.hub_id} --revision {self.revision}",
                pointer=pointer,
            )
        return found

    def tokenizer_path(self, *, pointer: str = "") -> Path:
        """The folder of the tokenizer: `tokenizer` where it is given, else the checkpoint's."""
        if self.tokenizer is None:
            return self.checkpoint_path(pointer=pointer)
        if not self.tokenizer.is_dir():
            raise HemostatError(
                ErrorCode.CHECKPOINT_NOT_FOUND,
                f"model {self.alias!r}: there is no tokenizer folder {self.tokenizer}",
                hint=f"correct models.{self.alias}.tokenizer in models.toml",
                pointer=pointer,
            )
        return self.tokenizer

    def sized(self, settings: Settings) -> Settings:
        """The settings with which it runs: its own sizes count."""
        return settings.model_copy(update=dict(self.sizes))


@dataclass(frozen=True)
class Registry:
    """The aliases of one models.toml."""

    file: Path
    entries: dict[str, ModelEntry]

    @property
    def aliases(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted(self.entries))

    def resolve(self, alias: str, *, pointer: str = "") -> ModelEntry:
        """The entry. Raises `HemostatError(UNKNOWN_MODEL)` with the nearest alias."""
        entry = self.entries.get(alias)
        if entry is None:
            raise HemostatError(
                ErrorCode.UNKNOWN_MODEL,
                f"there is no model {alias!r}",
                hint=f"{suggestion(alias, self.entries)}; or add it with `hemostat models add ALIAS FOLDER|HUB_ID`",
                pointer=pointer,
            )
        return entry


def load_registry(file: Path) -> Registry:
    """Reads and checks models.toml; read again only when the file has changed.

    Raises `HemostatError`: UNKNOWN_MODEL if there is no file, since no alias is known then. MODELS_FILE_INVALID for an
    unreadable file, and for bad TOML with the line. What does not fit the format above is reported with the line and
    the nearest valid name.
    """
    try:
        stat = file.stat()
    except FileNotFoundError as error:
        raise HemostatError(
            ErrorCode.UNKNOWN_MODEL,
            f"no model has an alias: {file} does not exist",
            hint="`hemostat demo` adds the demo model, `hemostat models add ALIAS FOLDER|HUB_ID` any other; or point "
            "HEMOSTAT_MODELS at a file that exists",
        ) from error
    except OSError as error:
        raise HemostatError(
            ErrorCode.MODELS_FILE_INVALID,
            f"{file} cannot be read: {error.strerror}",
            hint="correct its permissions, or set HEMOSTAT_MODELS to another file",
        ) from error
    return _load(file, stat.st_mtime_ns, stat.st_size, stat.st_ino)


def settings_of(settings: Settings, alias: str) -> Settings:
    """The settings with which a model runs: its own sizes of models.toml count. Raises what `resolve` raises."""
    return load_registry(settings.models_file).resolve(alias).sized(settings)


def register(file: Path, alias: str, target: Path | Snapshot, *, replace: bool = True) -> None:
    """Makes `alias` lead to `target`, and leaves everything else in the file as it is. Atomic, one process at a time.

    Raises `HemostatError`: INVALID_REQUEST if the alias leads elsewhere and is not to be replaced. MODELS_FILE_INVALID
    if the file does not fit its format, or the alias is not a valid one; PATH_FORBIDDEN if the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            _register(file, alias, target, replace=replace)
        finally:
            os.close(folder)
    except OSError as error:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            f"{file} cannot be written: {error.strerror}",
            hint="correct its permissions, or set HEMOSTAT_MODELS to another file",
        ) from error


def _register(file: Path, alias: str, target: Path | Snapshot, *, replace: bool) -> None:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    before = _parse(text, file) if text else Registry(file, {})
    if alias in before.entries and before.entries[alias].target == target:
        return
    if alias in before.entries and not replace:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the alias {alias!r} was given to another model in the meantime",
            hint="give the command again, or add the model under another alias: hemostat models add",
        )
    kept = _without(text, alias) if alias in before.entries else text
    body = kept.rstrip("\n") + "\n\n" if kept else ""
    body += f"[models.{json.dumps(alias)}]\n{_toml(target)}"
    after = _parse(body, file)
    others = {name: entry for name, entry in before.entries.items() if name != alias}
    if {name: entry for name, entry in after.entries.items() if name != alias} != others:
        raise HemostatError(
            ErrorCode.MODELS_FILE_INVALID,
            f"{file}: the entry of {alias!r} has a form that cannot be replaced safely",
            hint=f"remove it by hand, or make it a separate table: [models.{alias}]",
        )
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    write_atomically(file, body.encode(), mode=mode)
    file.chmod(mode)  # whatever the umask


def _toml(target: Path | Snapshot) -> str:
    if isinstance(target, Path):
        return f"path = {json.dumps(str(target), ensure_ascii=False)}\n"
    return f"hub = {json.dumps(target.hub_id)}\nrevision = {json.dumps(target.revision)}\n"


def _without(text: str, alias: str) -> str:
    """The text without the table of `alias`: from its header to the next one."""
    lines = text.splitlines(keepends=True)
    start = _line_of(text, alias)
    end = next((i for i in range(start, len(lines)) if lines[i].lstrip().startswith("[")), len(lines))
    return "".join(lines[: start - 1] + lines[end:]) if start else text


@lru_cache(maxsize=16)
def _load(file: Path, _mtime: int, _size: int, _inode: int) -> Registry:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HemostatError(
            ErrorCode.MODELS_FILE_INVALID, f"{file} cannot be read: {error}", hint="it must be a UTF-8 text file"
        ) from error
    return _parse(text, file)


def _parse(text: str, file: Path) -> Registry:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HemostatError(
            ErrorCode.MODELS_FILE_INVALID, f"{file} is not valid TOML: {error}", hint="correct that line"
        ) from error
    for key in data:
        if key != "models":
            raise _invalid(file, text, key, f"unknown table {key!r}", suggestion(key, ["models"]))
    models = data.get("models", {})
    if not isinstance(models, dict):
        raise _invalid(file, text, "models", "models is not a table", "write one [models.NAME] table for each model")
    return Registry(file, {alias: _entry(file, text, alias, fields) for alias, fields in models.items()})


def _entry(file: Path, text: str, alias: str, fields: object) -> ModelEntry:
    if ALIAS.fullmatch(alias) is None:
        raise _invalid(
            file, text, alias, f"{alias!r} is not a valid alias", "use 1 to 128 letters, digits, '.', '_' and '-'"
        )
    if not isinstance(fields, dict):
        near = f"; did you mean [models.NAME] with {alias} in it?" if alias in FIELDS else ""
        raise _invalid(
            file, text, alias, f"models.{alias} is not a table", f"write [models.{alias}] and its fields{near}"
        )
    for key, value in fields.items():
        if key not in FIELDS:
            hint = suggestion(key, FIELDS)
            raise _invalid(file, text, alias, f"models.{alias} has an unknown field {key!r}", hint, key)
        if key in SIZES:
            if type(value) is not int or value < 1:
                raise _invalid(file, text, alias, f"models.{alias}.{key} is no whole number from 1", f"{key} = 2", key)
        elif not isinstance(value, str) or not value or "\0" in value:
            raise _invalid(file, text, alias, f"models.{alias}.{key} is not a text", f'write {key} = "…"', key)
    if ("path" in fields) == ("hub" in fields):
        raise _invalid(file, text, alias, f"models.{alias} needs either path or hub", "give exactly one of them")
    if ("hub" in fields) != ("revision" in fields):
        raise _invalid(
            file,
            text,
            alias,
            f"models.{alias}: hub and revision go together",
            "pin the hub id to a commit: what is measured must not change under the same name",
        )
    if "hub" in fields and (HUB_ID.fullmatch(fields["hub"]) is None or REVISION.fullmatch(fields["revision"]) is None):
        raise _invalid(
            file, text, alias, f"models.{alias}: no valid hub id and revision", 'as in hub = "org/name"', "hub"
        )
    if fields.get("dtype", "auto") not in DTYPES:
        hint = suggestion(fields["dtype"], DTYPES)
        raise _invalid(file, text, alias, f"models.{alias}: unknown dtype {fields['dtype']!r}", hint, "dtype")

    def folder(key: str) -> Path | None:
        return file.absolute().parent / Path(fields[key]).expanduser() if key in fields else None

    return ModelEntry(
        alias=alias,
        path=folder("path"),
        hub_id=fields.get("hub"),
        revision=fields.get("revision"),
        tokenizer=folder("tokenizer"),
        dtype=fields.get("dtype", "bfloat16"),
        sizes=tuple((key, fields[key]) for key in SIZES if key in fields),
    )


def _invalid(file: Path, text: str, table: str, detail: str, hint: str, key: str | None = None) -> HemostatError:
    line = _line_of(text, table, key)
    return HemostatError(ErrorCode.MODELS_FILE_INVALID, f"{file}{f' line {line}' if line else ''}: {detail}", hint=hint)


def _line_of(text: str, table: str, key: str | None = None) -> int:
    """Line, from 1, of a table's header or of a key in it; 0 if the file writes it in an unusual way."""
    header = re.compile(rf"""\s*\[\s*(models\s*\.\s*)?["']?{re.escape(table)}["']?\s*\]|\s*{re.escape(table)}\s*=""")
    found = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not found:
            if header.match(line):
                found = number
                if key is None:
                    return number
        elif line.lstrip().startswith("["):
            break
        elif re.match(rf"""\s*["']?{re.escape(key or "")}["']?\s*=""", line):
            return number
    return found


def in_hub_cache(hub_id: str, revision: str) -> Path | None:
    """The snapshot's folder in the Hugging Face cache. Its own variables say where the cache is, as for every tool."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    repository = cache / ("models--" + hub_id.replace("/", "--"))
    reference = repository / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = repository / "snapshots" / commit
    return snapshot if ".." not in Path(commit).parts and (snapshot / "config.json").exists() else None
