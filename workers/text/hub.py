"""Text from a data set of the hub, by id and revision, through the `datasets` library.

Only a name of the hub is ever looked up: an id that happens to name a local folder or one of the library's own builders
does not reach them. Data-set scripts are not run (the library has no way left to do so). Offline, a data set that was
loaded before is taken from the library's cache, if the revision asked for is the one in it.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import HubText
from app.settings import Settings
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.documents import Intake, TextDocument


def load_hub(
    source: HubText,
    *,
    settings: Settings,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[TextDocument]:
    """The first `source.documents` rows of the split whose column is not blank, each a document named by its row.

    Raises HUB_UNAVAILABLE (no network and not cached, or cached in another revision), TEXT_NOT_FOUND (no such data set,
    configuration, split or revision), INVALID_REQUEST (no such column, or one that is not text; the columns are named),
    and what `Intake` raises.
    """
    progress("text", 0, source.documents)
    rows = _open(source)
    columns = list(rows.column_names)
    if source.column not in columns:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"The data set {source.dataset!r} has no column {source.column!r}; it has {', '.join(map(repr, columns))}.",
            hint="Name the column that holds the text.",
            pointer="/text/column",
        )
    intake = Intake(settings)
    taken = 0
    for number, text in enumerate(_values(rows, source.column)):
        if number % 256 == 0:
            check_cancelled()
        if not isinstance(text, str):
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"Column {source.column!r} of {source.dataset!r} holds {type(text).__name__}, not text (row {number}).",
                hint=f"Name a column of strings; the columns are {', '.join(map(repr, columns))}.",
                pointer="/text/column",
            )
        if not text.strip():
            continue
        intake.add(TextDocument(f"{source.split}-{number}", source.domain, text=text))
        taken += 1
        progress("text", taken, source.documents)
        if taken == source.documents:
            break
    return intake.documents()


def _values(rows: Any, column: str) -> Iterator[Any]:
    """The column's values, read in slices: the rest of a wide or long table stays on disk."""
    narrow = rows.select_columns([column])
    for start in range(0, len(narrow), 256):
        yield from narrow[start : start + 256][column]


def _open(source: HubText) -> Any:
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if source.dataset in _PACKAGED_DATASETS_MODULES or source.dataset.startswith("buckets/"):
        raise _not_found(source, "that is a name of the library's own, not a data set")
    try:
        with _quiet():
            # The prefix makes the library look at the hub alone, never at a folder of that name.
            builder = datasets.load_dataset_builder(
                f"hf://datasets/{source.dataset}", name=source.config, revision=source.revision
            )
            _check_revision(builder, source)
            builder.download_and_prepare()
            return builder.as_dataset(split=source.split)
    except HemostatError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        raise _not_found(source, "no such data set or revision, or no permission to read it") from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise _not_found(source, "it is a script, and no code of others is run") from error
    except ValueError as error:
        raise _not_found(source, str(error).splitlines()[0]) from error
    except OSError as error:
        # ConnectionError, offline mode, time-outs, HTTP errors of the hub client
        raise _unavailable(source, type(error).__name__) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "requests", "huggingface_hub"):
            raise
        raise _unavailable(source, type(error).__name__) from error


def _check_revision(builder: Any, source: HubText) -> None:
    """Offline the library takes whatever revision is in its cache; a result must not name another than was read."""
    from_cache = type(builder).__module__.endswith("packaged_modules.cache.cache")
    if from_cache and source.revision is not None and builder.hash != source.revision:
        raise _unavailable(source, f"the cached revision is {builder.hash}, not the one asked for")


def _unavailable(source: HubText, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.HUB_UNAVAILABLE,
        f"The data set {source.dataset!r} is not on this machine, and the hub cannot be reached ({why}).",
        hint="Connect the worker to the hub (HF_HUB_OFFLINE unset, HF_ENDPOINT for a mirror), load the data set once "
        "while on line, or put the text below HEMOSTAT_TEXT_ROOT and use the file source.",
        pointer="/text/dataset",
        retry_after_s=60,
    )


def _not_found(source: HubText, why: str) -> HemostatError:
    asked = f"{source.dataset!r}, configuration {source.config!r}, split {source.split!r}, revision {source.revision!r}"
    return HemostatError(
        ErrorCode.TEXT_NOT_FOUND,
        f"The hub's data set cannot be read ({asked}): {why}.",
        hint="Check the id, config, split and revision on the data set's page.",
        pointer="/text/dataset",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of the library in the worker's log."""
    import datasets

    logger = logging.getLogger("datasets")
    level = logger.level
    shown = datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            datasets.enable_progress_bars()
