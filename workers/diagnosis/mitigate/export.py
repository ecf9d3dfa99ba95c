"""What a mitigate job leaves beside its report: the recipe, a model card, the adapter, the values of every test token,
and the whole checkpoint where it was asked for."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError
from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest
from app.models.checkpoint import CHANNELS
from app.recipes.recipe import Recipe
from workers.diagnosis.mitigate.card import ARCHIVE_FILE, model_card
from workers.diagnosis.mitigate.report import Tested
from workers.measuring.recipes import Bench
from workers.measuring.sets import Sets
from workers.measuring.sides import Sides
from workers.measuring.subject import fields_of
from workers.process.handler import JobContext

RECIPE_FILE: Final = "recipe.json"
REQUEST_FILE: Final = "compare.json"
CARD_FILE: Final = "README.md"
BEFORE_FILE: Final = "candidate.parquet"
AFTER_FILE: Final = "treated.parquet"
# As PEFT names them, and the record of the channels that are scaled where it goes; a repair step puts them into this
# folder beside the checkpoint's weights.
ADAPTER_FOLDER: Final = "adapter"
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors", CHANNELS)
# The weights that the adapter goes on, where a repair made them again.
BASE_FOLDER: Final = "base"
_PIECE: Final = 1 << 24
_OWN: Final = frozenset({"manifest.json", "entry.json"})


def export(
    report: MitigateReport,
    tested: Tested,
    sets: Sets,
    sides: Sides,
    request: MitigateRequest,
    bench: Bench,
    context: JobContext,
) -> None:
    """Writes the artifacts. Raises DISK_FULL."""
    _values(tested, sets, report, context)
    done = tested.done() if report.helped else None
    if done is None:
        return
    write_recipe(done.recipe, request, context.output)
    with bench.make(done.recipe) as modified:
        files = leave(modified.path, context, checkpoint=request.export == "checkpoint")
        card = model_card(report, files, anew=(modified.path / BASE_FOLDER).is_dir())
    with _raising_disk_full(CARD_FILE):
        (context.output / CARD_FILE).write_text(card, encoding="utf-8")


def leave(made: Path, context: JobContext, *, checkpoint: bool) -> list[str]:
    """Leaves the files of a checkpoint's folder, the repair as a LoRA among them, and returns their names.

    Artifacts lie in one folder, and loaders take every safetensors file, and an adapter, that they find beside a
    checkpoint: with `checkpoint` the LoRA is an archive. In it are the weights that it goes on, too, where these were
    made again in rounds; without them it would be of no use, and is left out. Raises DISK_FULL.
    """
    adapter, base = made / ADAPTER_FOLDER, made / BASE_FOLDER
    if checkpoint:
        files = {path.name: path for path in sorted(made.iterdir()) if path.is_file() and path.name not in _OWN}
    else:
        plain = [] if base.is_dir() else ADAPTER_FILES
        files = {name: adapter / name for name in plain if (adapter / name).is_file()}
    for name, path in files.items():
        context.check_cancelled()
        with _raising_disk_full(name):
            _link(path, context.output / name)
    if not checkpoint or not adapter.is_dir():
        return list(files)
    with _raising_disk_full(ARCHIVE_FILE):
        _pack(context.output / ARCHIVE_FILE, made, (adapter, base), context)
    return [*files, ARCHIVE_FILE]


def _pack(archive: Path, made: Path, folders: Sequence[Path], context: JobContext) -> None:
    """Folders of a checkpoint as they are: numbers of 16 bits do not become smaller."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(path for folder in folders for path in folder.glob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(made).as_posix())
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE):
                    context.check_cancelled()
                    target.write(piece)


def write_recipe(recipe: Recipe, request: MitigateRequest, folder: Path) -> None:
    """The recipe alone, for `--recipe @recipe.json`, and as the body of a compare job. Raises DISK_FULL."""
    steps: list[dict[str, Any]] = [fields_of(step) for step in recipe]
    body: dict[str, Any] = {
        "kind": "compare",
        "reference": {"model": request.reference.model},
        "candidate": {"model": request.candidate.model, "recipe": steps},
        "window": request.window,
        "seed": request.seed,
    }
    if request.allow_overlap:
        body["allow_overlap"] = True
    for name, content in ((RECIPE_FILE, steps), (REQUEST_FILE, body)):
        with _raising_disk_full(name):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _values(tested: Tested, sets: Sets, report: MitigateReport, context: JobContext) -> None:
    """The values of every test token, so that each number can be checked."""
    ids = [document.id for document in sets.test.documents]
    domains = [document.domain for document in sets.test.documents]
    named = [(BEFORE_FILE, tested.raw)]
    if report.helped and tested.recommended is not None:
        named.append((AFTER_FILE, tested.measured[tested.recommended.key]))
    for name, measurement in named:
        with _raising_disk_full(name):
            measurement.values.to_parquet(context.output / name, tested.part.where, ids, domains)


@contextmanager
def _raising_disk_full(name: str) -> Iterator[None]:
    """Turns the system's ways of saying that the disk takes no more of the artifact `name` into DISK_FULL."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise HemostatError(
            ErrorCode.DISK_FULL,
            f"the disk is full: {name} could not be written ({os.strerror(error.errno)})",
            hint=(
                "free space below HEMOSTAT_HOME, or allow larger files there, then submit the job again. It keeps "
                "its checkpoints if their store has room, but not its measurements"
            ),
        ) from error


def _link(source: Path, target: Path) -> None:
    """A second name of the file where one disk holds both, else a copy: weights need not lie there twice."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}:
            raise
        shutil.copyfile(source, target)
