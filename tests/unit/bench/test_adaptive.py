"""What the page says of chosen settings is what the bench found."""

from pathlib import Path

from tests.bench.adaptive import RESULTS
from tests.bench.rows import read

PAGE = Path(__file__).resolve().parents[3] / "docs" / "results" / "sweep.md"


def test_the_page_has_the_figures_of_the_rows() -> None:
    found = {(row.case, row.metric): row.value for row in read(RESULTS)}

    def against(metric: str) -> str:
        return f"{found['adaptive', metric]:.3f} against {found['even', metric]:.3f}"

    held = [f"{100 * found[case, 'coverage_of_95']:.0f} %" for case in ("adaptive", "even")]
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"narrower intervals, {against('mean_width')} of s in the mean and {against('median_width')} in the" in page
    assert f"of the knee, {against('mean_error')} and {against('median_error')}; the intervals" in page
    assert f"hold the true knee in {held[0]} and {held[1]}." in page
