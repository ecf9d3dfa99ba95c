"""What `tests.bench.harness` compares of ours. The environment is prepared before anything is imported here."""

import tempfile
from pathlib import Path

import numpy as np

from app.contracts.task import METRICS, FileTask, TaskFormat, TaskMetric
from app.kinds.tasks.request import TasksRequest
from app.models.registry import register
from app.models.tasks.items import Item
from app.models.tasks.reading import read_task
from app.settings import Settings
from tests.bench.cases import MODEL, BenchContext
from tests.bench.harness_items import TARGETS, TEXTS
from tests.bench.harness_told import DRAWS, FORMATS, MAX_TOKENS, Told, drawn, shown
from workers.answering.answers import INVALID, STOPS, choose, cut, read_numbers
from workers.answering.pair import AnsweringPair
from workers.distributions.reference_store import ReferenceStore
from workers.engine.room import EngineRoom
from workers.measuring.sides import modify, resolve
from workers.surgery.import_gguf import demo_gguf, import_gguf
from workers.text.tokenization import bos_of, load_tokenizer


def answer(home: Path, dtype: str) -> dict[TaskFormat, list[Told]]:
    """By format, what a tasks job's pair answers."""

    if not (MODEL / "model.safetensors").is_file():
        import_gguf(demo_gguf(), MODEL)
    settings = Settings(home=Path(tempfile.mkdtemp(dir=home)), text_root=home)
    register(settings.models_file, "demo", MODEL)
    with settings.models_file.open("a") as file:
        file.write(f'dtype = "{dtype}"\n')
    tasks = [
        FileTask(source="file", format=form, path=f"{form}.jsonl", **shown(form), max_tokens=MAX_TOKENS)
        for form in FORMATS
    ]
    request = TasksRequest.model_validate(
        {
            "kind": "tasks",
            "reference": {"model": "demo"},
            "self_check": True,
            "candidate": {"model": "demo"},
            "text": {"source": "shipped"},
            "tasks": tasks,
        }
    )
    context = BenchContext(settings, "harness")
    room = EngineRoom(settings)
    reference, entry, origin = resolve(request, context)
    if entry.dtype != dtype:
        raise ValueError(f"models.toml runs the model in {entry.dtype}")
    sides = modify(request, reference, entry, origin, context, device="cpu")
    tokenizer = load_tokenizer(reference.tokenizer)
    store = ReferenceStore(settings.home / "references", settings.reference_budget_bytes)
    found: dict[TaskFormat, list[Told]] = {}
    with sides.modified:
        pair = AnsweringPair(sides, tokenizer, bos_of(tokenizer), room, store, context)
        for number, task in enumerate(tasks):
            items = read_task(task, settings, seed=0, pointer="/tasks")
            done = pair.answer(number, task, items)
            logps = done.likelihoods.reference if done.likelihoods else None
            found[task.format] = [
                Told(
                    item.context,
                    tuple(map(float, logps[index])) if logps else (),
                    done.texts[0][index] if done.texts else "",
                    {metric: one.said[index] or INVALID for metric, one in done.reference.items()},
                    {metric: bool(one.right[index]) for metric, one in done.reference.items()},
                )
                for index, item in enumerate(items)
            ]
    room.close()
    return found


def choices(home: Path) -> list[Told]:
    """What we choose by drawn likelihoods."""

    task = FileTask(source="file", format="arc", path="arc.jsonl")
    items = read_task(task, Settings(home=home / "home", text_root=home), seed=0, pointer="/tasks")
    found = []
    for number, item in enumerate(items * DRAWS):
        logp = drawn(item.choices, number)
        answers = {metric: choose([item], [np.asarray(logp)], metric) for metric in METRICS["arc"]}
        said: dict[TaskMetric, str] = {metric: one.said[0] or INVALID for metric, one in answers.items()}
        right: dict[TaskMetric, bool] = {metric: bool(one.right[0]) for metric, one in answers.items()}
        found.append(Told(item.context, (), "", said, right))
    return found


def read() -> list[Told]:
    """Every text against every target, as we read it."""

    found = []
    for text in TEXTS:
        for target in TARGETS:
            item = Item("text", text, target=target)
            answers = {metric: read_numbers([item], [cut(text, STOPS["gsm8k"])], metric) for metric in METRICS["gsm8k"]}
            found.append(
                Told(
                    text,
                    (),
                    cut(text, STOPS["gsm8k"]) + cut(text, STOPS["humaneval"]),
                    {metric: one.said[0] or INVALID for metric, one in answers.items()},
                    {metric: bool(one.right[0]) for metric, one in answers.items()},
                )
            )
    return found
