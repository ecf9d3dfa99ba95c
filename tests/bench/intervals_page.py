"""The tables of docs/results/statistics.md, from tests/bench/intervals.csv."""

from typing import Final

from tests.bench import intervals
from tests.bench.rows import by_case, read, span, table

SHAPES: Final = {
    **{shape: f"σ = {shape.removeprefix('lognormal_')}" for shape in intervals.SHAPES if shape != "one_in_ten"},
    "one_in_ten": "one in ten",
}
COVERAGE: Final = "coverage_of_95"
PERCENTILE: Final = "percentile_coverage_of_95"


def _of() -> dict[str, dict[str, float]]:
    return by_case(read(intervals.RESULTS))


def _by_documents(metric: str) -> str:
    of = _of()
    lines = (
        [str(count), *(f"{100 * of[f'{shape}_{count}_documents'][metric]:.1f} %" for shape in SHAPES)]
        for count in intervals.DOCUMENTS
    )
    return table(["documents", *SHAPES.values()], lines)


def few() -> str:
    """Coverage of texts of fewer than six documents."""
    of = _of()
    lines = (
        [
            str(count),
            *(
                f"{100 * of[f'{count}_documents_of_{windows}_windows'][COVERAGE]:.1f} %"
                for windows in intervals.WINDOWS
            ),
        ]
        for count in intervals.FEW
    )
    return table(["documents", *(f"{windows} windows each" for windows in intervals.WINDOWS)], lines)


def wrong() -> str:
    """How often p is below each level without a difference."""
    of = _of()
    kinds = ("skewed", "paired")
    head = [f"{kind}: {100 * level:g} %" for kind in kinds for level in intervals.LEVELS]
    lines = (
        [
            str(count),
            shape.removeprefix("lognormal_"),
            *(
                f"{100 * of[f'{kind}_{shape}_{count}_documents'][f'p_below_{level:g}']:.1f} %"
                for kind in kinds
                for level in intervals.LEVELS
            ),
        ]
        for shape in intervals.P_SHAPES
        for count in intervals.P_DOCUMENTS
    )
    return table(["documents", "σ", *head], lines)


def draws() -> str:
    """How many texts a cell has, and what its numbers are known to."""
    texts = _of()["all"]["texts_per_cell"]
    error = (0.95 * 0.05 / texts) ** 0.5
    return f"{texts:,.0f} texts per cell; a share of 95 % has a standard error of {100 * error:.2f} points."


def covered(fewest: int) -> str:
    """The range of coverage of lognormal effects, from so many documents on."""
    of = _of()
    return span(
        of[f"{shape}_{count}_documents"][COVERAGE]
        for shape in SHAPES
        if shape.startswith("lognormal")
        for count in intervals.DOCUMENTS
        if count >= fewest
    )


def p_below() -> str:
    """How often p is below the lower level."""
    level = min(intervals.LEVELS)
    metric = f"p_below_{level:g}"
    found = span((of[metric] for of in _of().values() if metric in of), digits=1)
    return f"below {100 * level:g} % in {found}"


PARTS: Final = {
    "statistics-draws": draws,
    "statistics-coverage": lambda: _by_documents(COVERAGE),
    "statistics-percentile": lambda: _by_documents(PERCENTILE),
    "statistics-few": few,
    "statistics-p": wrong,
    "covered-by-many": lambda: covered(30),
    "covered": lambda: covered(min(intervals.DOCUMENTS)),
    "covered-one-in-ten": lambda: f"{100 * _of()['one_in_ten_10_documents'][COVERAGE]:.0f} %",
    "covered-by-few": lambda: span(of[COVERAGE] for case, of in _of().items() if case.endswith("_windows")),
    "p-below": p_below,
}
