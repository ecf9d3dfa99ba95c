from pathlib import Path

from workers.engine.serving.counters import Counters

PAGE = (Path(__file__).resolve().parents[5] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_the_page_tells_of_each() -> None:
    families = [one for one in Counters("demo").registry.collect() if one.name.startswith("hemostat_")]
    assert len(families) == 4
    section = PAGE.partition("## Engine process")[2].partition("\n## ")[0]
    for one in families:
        name = f"{one.name}_total" if one.type == "counter" else one.name
        labels = sorted({label for sample in one.samples for label in sample.labels} - {"le"})
        told = next(line for line in section.splitlines() if line.startswith(f"| `{name}` |"))
        assert told.split("|")[2].strip() == one.type
        assert sorted(cell.strip("`, ") for cell in told.split("|")[3].split(",") if "`" in cell) == labels
        assert told.split("|")[4].strip() == one.documentation
