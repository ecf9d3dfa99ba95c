"""The bench of modifications on a checkpoint of another architecture, which is given by its folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bench import mitigation, mitigation_page
from tests.bench.rows import read

WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")


def article(number: int) -> str:
    words = np.random.default_rng(number).choice(WORDS, 400)
    return f" = Article {number} = \n {' '.join(words)}\n"


def test_another_checkpoint_is_measured_by_its_path_under_a_name_of_its_own(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen2's architecture, a step that looks at text and one that does not; the page stays the demo model's."""
    text, home, page = tmp_path / "wiki.raw", tmp_path / "home", tmp_path / "measured.md"
    text.write_text("".join(map(article, range(8))))
    monkeypatch.setattr(mitigation, "HOME", home)
    monkeypatch.setattr(mitigation, "RESULTS", tmp_path / "mitigation.csv")
    monkeypatch.setattr(mitigation_page, "RESULTS", tmp_path / "mitigation.csv")
    monkeypatch.setattr(mitigation_page, "PAGE", page)
    model = tiny("qwen2", max_position_embeddings=512)
    given = ["--text", str(text), "--model", str(model), "--as", "tiny-qwen"]
    mitigation.main([*given, "--only", "^(gptq_4_128|moe_topk_1)$"])

    found = read(tmp_path / "mitigation.csv")
    assert {row.bench for row in found} == {"mitigation:tiny-qwen"}
    assert {row.case for row in found} == {"gptq_4_128", "rtn_4"}, "and what it is held against; mixtures are others"
    values = {(row.case, row.metric): row.value for row in found}
    kl = {case: values[case, "kl_wiki"] for case in ("rtn_4", "gptq_4_128")}
    for case in kl:
        assert values[case, "bits_per_weight"] == 4 + 20 / 64
        for name in ("kl_wiki", "kl_unfitted"):
            assert 0 < values[case, f"{name}_low"] < values[case, name] < values[case, f"{name}_high"]
    ratio = values["gptq_4_128", "ratio_to_rtn_4_wiki"]
    assert ratio == pytest.approx(kl["gptq_4_128"] / kl["rtn_4"], rel=1e-4)
    assert values["gptq_4_128", "ratio_to_rtn_4_wiki_met"] == (ratio <= 1)
    assert not page.exists(), "the page is the demo model's"
