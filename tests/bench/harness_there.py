"""What `tests.bench.harness` compares of lm-evaluation-harness: its evaluator, its model class and its definitions."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from app.contracts.task import METRICS, TaskFormat, TaskMetric
from tests.bench.cases import MODEL
from tests.bench.harness_items import TARGETS, TEXTS
from tests.bench.harness_told import DRAWS, FORMATS, MAX_TOKENS, Told, drawn, shown

# Format: the harness' definition, and the field of a row that names the right choice.
DEFINITIONS: Final[dict[TaskFormat, tuple[str, str]]] = {
    "hellaswag": ("hellaswag/hellaswag.yaml", "label"),
    "arc": ("arc/arc_easy.yaml", "answerKey"),
    "mmlu": ("mmlu/default/mmlu_anatomy.yaml", "answer"),
    "gsm8k": ("gsm8k/gsm8k.yaml", ""),
}
FILTERS: Final[dict[str, TaskMetric]] = {
    "strict-match": "exact_match_strict",
    "flexible-extract": "exact_match_flexible",
}


def answer(home: Path, dtype: str) -> dict[TaskFormat, list[Told]]:
    """By format, what the harness answers."""
    make = _harness("api.task").ConfigurableTask
    tasks = {form: make(config=definition(form, home)) for form in FORMATS}
    model = _harness("models.huggingface").HFLM(pretrained=str(MODEL), dtype=dtype, device="cpu", batch_size=1)
    evaluate = _harness("evaluator").simple_evaluate
    found = evaluate(model=model, tasks=list(tasks.values()), bootstrap_iters=0, log_samples=True)
    told: dict[TaskFormat, list[Told]] = {}
    for form, task in tasks.items():
        samples = sorted(found["samples"][task.config.task], key=lambda sample: sample["doc_id"])
        told[form] = _generated(samples) if form == "gsm8k" else [_chosen(task, form, sample) for sample in samples]
    return told


def definition(form: TaskFormat, home: Path) -> dict[str, Any]:
    """The harness' own definition of a task, pointed at our files."""
    config = _definition(DEFINITIONS[form][0])
    for field in ("tag", "task_alias", "dataset_name", "training_split", "validation_split", "fewshot_split"):
        config.pop(field, None)
    files = {"test": str(home / f"{form}.jsonl")}
    if examples := shown(form):
        files["train"] = str(home / examples["examples"])
        config |= {"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}}
    config |= {
        "task": form,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "num_fewshot": examples.get("shots", 0),
    }
    if form == "gsm8k":
        config["generation_kwargs"]["max_gen_toks"] = MAX_TOKENS
    else:
        config["metric_list"] = [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in METRICS[form]
        ]
    return config


def _harness(module: str) -> Any:
    """A module of the harness, which brings no types."""
    return import_module(f"lm_eval.{module}")


def _definition(name: str, **options: bool) -> dict[str, Any]:
    folder = Path(str(_harness("tasks").__file__)).parent
    found: dict[str, Any] = _harness("tasks._yaml_loader").load_yaml(folder / name, **options)
    return found


def _said(task: Any, form: TaskFormat, doc: dict[str, Any], results: Any) -> dict[TaskMetric, str]:
    """By metric the choice that the harness calls right if the item says that it is."""
    said: dict[TaskMetric, str] = {}
    for index, choice in enumerate(task.doc_to_choice(doc)):
        label = doc["choices"]["label"][index] if form == "arc" else index
        for metric, right in task.process_results(doc | {DEFINITIONS[form][1]: label}, results).items():
            if right:
                said.setdefault(metric, choice)
    return said


def _chosen(task: Any, form: TaskFormat, sample: dict[str, Any]) -> Told:
    results = sample["filtered_resps"]
    return Told(
        sample["arguments"][0][0],
        tuple(float(logp) for logp, _ in results),
        "",
        _said(task, form, sample["doc"], results),
        {metric: bool(sample[metric]) for metric in METRICS[form]},
    )


def _generated(samples: Sequence[dict[str, Any]]) -> list[Told]:
    """A sample stands there once a filter."""
    of: dict[TaskMetric, list[dict[str, Any]]] = {
        metric: [sample for sample in samples if sample["filter"] == name] for name, metric in FILTERS.items()
    }
    return [
        Told(
            one[0]["arguments"][0][0],
            (),
            one[0]["resps"][0][0],
            {metric: sample["filtered_resps"][0] for metric, sample in zip(of, one, strict=True)},
            {metric: bool(sample["exact_match"]) for metric, sample in zip(of, one, strict=True)},
        )
        for one in zip(*of.values(), strict=True)
    ]


def choices(home: Path) -> list[Told]:
    """What the harness chooses by the same."""
    task = _harness("api.task").ConfigurableTask(config=definition("arc", home))
    found = []
    for number, doc in enumerate([*task.test_docs()] * DRAWS):
        logp = drawn(task.doc_to_choice(doc), number)
        results = [(value, False) for value in logp]
        right: dict[TaskMetric, bool] = {
            metric: bool(value) for metric, value in task.process_results(doc, results).items()
        }
        found.append(Told(task.doc_to_text(doc), (), "", _said(task, "arc", doc, results), right))
    return found


def read(home: Path) -> list[Told]:
    """The same through the harness' stops, filters and metric."""
    cut = _harness("models.utils").postprocess_generated_text
    regex = _harness("filters.extraction").RegexFilter
    exact_match = _harness("api.metrics").exact_match_hf_evaluate
    config = definition("gsm8k", home)
    humaneval = _definition("humaneval/humaneval.yaml", resolve_func=False)
    options = {
        name: value for name, value in config["metric_list"][0].items() if name.startswith(("ignore_", "regexes_"))
    }
    found = []
    for text in TEXTS:
        answer = cut(text, config["generation_kwargs"]["until"], None)
        code = cut(text, humaneval["generation_kwargs"]["until"], None)
        said: dict[TaskMetric, str] = {}
        for filters in config["filter_list"]:
            settings = {name: value for name, value in filters["filter"][0].items() if name != "function"}
            said[FILTERS[filters["name"]]] = next(iter(regex(**settings).apply([[answer]], [{}])))[0]
        for target in TARGETS:
            right = {
                metric: bool(exact_match([one], [target], **options)["exact_match"]) for metric, one in said.items()
            }
            found.append(Told(text, (), answer + code, said, right))
    return found
