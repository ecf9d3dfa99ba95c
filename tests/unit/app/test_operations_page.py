import re
from pathlib import Path

from app.settings import Settings

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `HEMOSTAT_(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def test_the_page_names_every_setting_with_its_default() -> None:
    told = {name.lower(): default.strip("`") for name, default in ROW.findall(PAGE)}
    assert set(told) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if name != "home":  # depends on the machine
            assert told[name] == ("none" if field.default is None else str(field.default)), name
