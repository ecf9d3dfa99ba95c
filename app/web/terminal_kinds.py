"""The kinds of token of a trajectory report in a terminal: those of its first decoder."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from app.contracts.report import Mean
from app.kinds.trajectory.report import TrajectoryReport
from app.web import format as fmt
from app.web.sections.trajectory_classes import by_share, kl_rows, named, sentences, told_p
from app.web.sections.trajectory_words import UNKNOWN, first_cells, label
from app.web.terminal_parts import Say, plain_table


def print_kinds(report: TrajectoryReport, console: Console, say: Say, *, wide: bool) -> None:
    """Where texts part and KL along both texts by kind of token, with intervals where it is `wide`."""
    decoder = label(report.decoders[0].name)

    def told(mean: Mean, *, percent: bool = False) -> str:
        return str(fmt.estimate(mean.mean, mean.ci if wide else None, percent=percent))

    parting = plain_table(
        f"By kind of token, {decoder}: first different tokens, and all tokens up to there, %",
        [("Kind", False), ("First different", True), ("Of tokens", True), ("By place", True), ("p, adjusted", True)],
    )
    kl = plain_table(
        f"By kind of token, {decoder}: KL in nats a token" + (", with 95 % intervals" if wide else ""),
        [("Kind", False), ("on the reference’s text", True), ("on the candidate’s own", True)],
    )
    for cell in first_cells(report):
        for one in by_share(cell.by_class):
            place = fmt.NONE if one.share_by_place is None else fmt.percent(one.share_by_place, 2)
            share, of = (told(mean, percent=True) for mean in (one.share, one.share_of_tokens))
            parting.add_row(
                Text(say(named(report, cell, one.name))), *map(say, (share, of, place, told_p(one.p_value)))
            )
        for name, *both in kl_rows(cell.by_class):
            means = (UNKNOWN if one is None else one.kl for one in both)
            kl.add_row(Text(say(named(report, cell, name))), *(say(told(mean)) for mean in means))
    console.print(parting)
    console.print(kl)
    console.print(Text(say(" ".join(sentences(report)))))
