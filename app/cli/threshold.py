"""`hemostat threshold`: the robustness threshold of a curve from a file. No service, no worker, no model is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.output import Json, fail, out, print_json
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notices import ThresholdNotice
from workers.analysis.numerals import numeral

_LABELS = {
    "power_law_then_exponential": "published",
    "power_law_then_exponential_over_dense": "published, over dense",
    "line": "line in y",
}
# The forms that agree with the answer are those that one is chosen of.
_AMONG = {"transition": " of those with a transition", "no transition in range": " of those without a transition"}
_COLOURS = {"transition": "green", "no transition in range": "cyan", "not identifiable": "yellow"}


def threshold(
    file: Annotated[
        Path,
        typer.Argument(help="JSON: points (pairs of s and perplexity); bounds, dense and params are optional."),
    ],
    *,
    curve: Annotated[str | None, typer.Option(help="Name of the curve, if the file has several.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Find how far a knob can be turned: fit the knee of a curve, with interval, tests and rival forms.

    s is the share removed, above 0 and at most 1. Bounds of a, b, s0, k1, k2 are pairs; null is open. `params` are
    coefficients that were published for these points: the output compares their error with the fit's.
    """
    try:
        answer = _answer(file, seed, curve)
    except HemostatError as error:
        fail(error, as_json=as_json)
    if as_json:
        print_json(answer)
    else:
        _print(answer)


def _answer(file: Path, seed: int, curve: str | None = None) -> Json:
    try:
        # Late: they need numpy and scipy, which the front end does without.
        from workers.analysis.threshold.answer import fit_threshold
        from workers.analysis.threshold.request import parse_request
    except ModuleNotFoundError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"{error.name} is not installed, and the fit needs it.",
            hint="Install numpy and scipy, or the extra worker-cpu or worker-gpu.",
        ) from error
    request = parse_request(_read(file), curve)
    answer = fit_threshold(request.curve, request.bounds, dense=request.dense, seed=seed)
    told = request.publication and request.publication.against(request.curve, request.bounds, answer.fit)
    warnings = [ThresholdNotice.of(*one).model_dump(mode="json") for one in answer.warnings]
    return answer.as_json() | {"warnings": warnings, "published": told}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"{file} is not UTF-8: byte {error.start}.", hint="Give a JSON file."
        ) from None
    except OSError as error:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"{file} cannot be read: {error.strerror}.", hint="Give a JSON file."
        ) from None


def _print(answer: Json) -> None:
    low, high = answer["ci"]
    table = Table(show_header=False, box=None, padding=(0, 2))
    colour = _COLOURS[answer["answer"]]
    table.add_row("answer", f"[bold {colour}]{answer['answer']}[/]")
    for reason in answer["reasons"]:
        table.add_row("", escape(reason))
    table.add_row("s0", f"[bold]{answer['s0']:.4f}[/]  95 % interval {low:.4f} to {high:.4f}")
    names = ("a", "b", "k1", "k2")
    table.add_row("published form", "  ".join(f"{name} {_number(answer['params'][name])}" for name in names))
    table.add_row(
        "slope of ln PPL", "  ".join(f"{side} {_number(answer['slopes'][side])}" for side in ("below", "above"))
    )
    test, fit = answer["transition_test"], answer["lack_of_fit"]
    told = "not testable" if fit is None else f"p = {fit:.3g}"
    table.add_row("tests", f"no transition: p = {test['p']:.3g}  lack of fit: {told}")
    if near := answer["near_lossless"]:
        table.add_row("near-lossless", _near_lossless(near))
    publication = answer["published"]
    if publication:
        place, log_sse, fitted = publication["params"]["s0"], publication["log_sse"], answer["log_sse"]
        gap = numeral(publication["difference"], "+.4g")
        table.add_row("as published", f"s0 {place:.4f}  log SSE {_number(log_sse)}")
        table.add_row("fit − published", f"log SSE {_number(fitted)} − {_number(log_sse)} = {gap}")
    if _judged(answer):
        table.add_row("best form", f"{_label(answer['form'])}: {_chosen_by(answer)}")
    out.print(table)
    out.print(_forms(answer))
    for warning in [*(one["text"] for one in answer["warnings"]), *(publication["notes"] if publication else ())]:
        out.print(f"[yellow]note[/] {escape(warning)}", soft_wrap=True)


def _near_lossless(near: Json) -> str:
    """How far the published rule lets the knob be turned. A curve has one perplexity a setting, and no documents to
    draw again."""
    if near["largest"] is None:
        return "not even at the first setting"
    if near["at"] is None:
        return f"up to {_number(near['largest'])}, the last setting; not passed in the measured range"
    return (
        f"up to {_number(near['largest'])} measured, {_number(near['at'])} interpolated; no interval: the curve has no "
        "documents to draw again"
    )


def _judged(answer: Json) -> bool:
    """Whether every form has an AICc, so that one can be chosen."""
    return all(form["aicc"] is not None for form in (answer, *answer["rivals"]))


def _label(form: str) -> str:
    return _LABELS.get(form, form.replace("_", " "))


def _chosen_by(answer: Json) -> str:
    """What the best form is the best by, and of which."""
    of = _AMONG.get(answer["answer"], "")
    return f"the least left-out error within 2 of the least AICc{of}"


def _forms(answer: Json) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2), caption_justify="left")
    for heading in ("form", "changes at", "log SSE", "AICc", "left-out error"):
        table.add_column(heading, justify="left" if heading == "form" else "right")
    own = {
        "form": "power_law_then_exponential",
        "transition_at": answer["s0"],
        **{key: answer[key] for key in ("log_sse", "aicc", "left_out_error")},
    }
    forms = [own, *answer["rivals"]]
    judged = _judged(answer)
    for form in forms:
        best = judged and form["form"] == answer["form"]
        table.add_row(
            _label(form["form"]),
            *(_number(form[key]) for key in ("transition_at", "log_sse", "aicc", "left_out_error")),
            style="bold" if best else None,
        )
    if not judged:
        table.caption = "No choice of form: too few points for the AICc of some."
    if any(form["left_out_error"] is None for form in forms):
        table.caption = f"{table.caption} A left-out error takes two points more than the form has coefficients."
    return table


def _number(value: Any) -> str:
    return "–" if value is None else numeral(value, ".4g")
