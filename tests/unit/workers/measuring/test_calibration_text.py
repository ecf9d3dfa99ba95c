import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from transformers import AutoTokenizer

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText, TextSource
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from app.settings import Settings
from workers.measuring.calibration_text import CalibrationLoader, loader_without_sampler
from workers.text.documents import TextDocument, of_inline

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TEXTS = ["the quick brown fox jumps over the lazy dog", "zero one two three four five six", "a model that is changed"]


def step(**fields: Any) -> Calibrated:
    documents = [{"id": f"d{index}", "text": text} for index, text in enumerate(TEXTS)]
    inline = {"source": "inline", "documents": documents}
    (found,) = RECIPE.validate_python(
        [
            {
                "type": "prune.wanda",
                "sparsity": 0.5,
                "calibration": inline,
                "calibration_windows": 3,
                "calibration_window": 8,
            }
            | fields
        ]
    )
    assert isinstance(found, Calibrated)
    return found


def loader(folder: Path, **more: Any) -> CalibrationLoader:
    def load(source: TextSource) -> list[TextDocument]:
        assert isinstance(source, InlineText)
        return of_inline(source.documents, settings=Settings())

    return CalibrationLoader(load, folder, **more)


def test_windows_are_the_documents_one_after_the_other(tiny: Tiny) -> None:
    found = loader(tiny())(step())
    tokenizer = AutoTokenizer.from_pretrained(tiny())
    order = np.random.default_rng(0).permutation(3)
    ids = [token for index in order for token in tokenizer(TEXTS[index], add_special_tokens=False)["input_ids"]]
    assert found.tokens_NL.shape == (3, 8)
    assert found.tokens_NL.flatten().tolist() == ids[:24]
    assert found.asked == 3


def test_the_tokens_that_text_is_made_of_come_with_it(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny(bos=True), tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(folder)
    found = loader(folder)(step()).ordinary_V
    words = tokenizer.convert_ids_to_tokens(found.tolist())
    assert sorted(words) == sorted(tokenizer.get_vocab().keys() - {"<s>", "</s>", "<tool>"})
    assert set(tokenizer.tokenize(TEXTS[0])) <= set(words)


def test_each_window_begins_with_the_bos_that_the_tokenizer_adds(tiny: Tiny) -> None:
    plain, with_bos = loader(tiny())(step()), loader(tiny(bos=True))(step())
    assert set(with_bos.tokens_NL[:, 0].tolist()) == {0}
    assert with_bos.tokens_NL[:, 1:].flatten().tolist() == plain.tokens_NL.flatten().tolist()[:21]


def test_fewer_windows_where_the_text_is_short_and_none_is_refused(tiny: Tiny) -> None:
    found = loader(tiny())(step(calibration_windows=4096))
    assert 3 <= len(found.tokens_NL) < 4096 == found.asked
    assert found.documents == 3
    with pytest.raises(HemostatError) as caught:
        loader(tiny())(step(calibration_window=8192))
    assert caught.value.code is ErrorCode.CALIBRATION_TOO_SHORT
    assert "8192" in caught.value.detail


def test_a_document_that_is_scored_too_is_refused_by_its_id_and_counts_once(tiny: Tiny) -> None:
    twice = [{"id": f"d{index}", "text": text} for index, text in enumerate([*TEXTS, *TEXTS])]
    looks = step(calibration={"source": "inline", "documents": twice}).model_dump()
    recipe = RECIPE.validate_python([{"type": "quantize.rtn", "bits": 4}, looks])
    scored = [TextDocument("other", "text", text="something else"), TextDocument("mine", "text", text=TEXTS[1].upper())]
    with pytest.raises(HemostatError, match=r"that prune\.wanda looks at is also scored, such as 'mine'") as caught:
        loader(tiny()).refuse_overlap(recipe, scored, pointer="/candidate/recipe")
    assert caught.value.code is ErrorCode.CALIBRATION_OVERLAP
    assert caught.value.pointer == "/candidate/recipe/1/calibration"
    assert TEXTS[1] not in caught.value.detail + caught.value.hint
    assert loader(tiny()).overlap(recipe, scored) == {1: ["mine"]}
    assert loader(tiny()).overlap(recipe, scored[:1]) == {}
    loader(tiny()).refuse_overlap(recipe, scored[:1], pointer="")


def test_what_is_served_cannot_sample_from_the_reference(tiny: Tiny) -> None:
    load = loader_without_sampler(Settings(), tiny())
    with pytest.raises(HemostatError) as caught:
        load(step(calibration={"source": "self"}))
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
    shipped = load(step(calibration={"source": "shipped", "corpus": "calibration", "documents": 4}))
    assert shipped.tokens_NL.shape == (3, 8)


def test_domains_of_which_a_step_reads_no_document_are_named_once(tiny: Tiny) -> None:
    scored = [TextDocument(f"s{at}", domain, text=f"scored {at}") for at, domain in enumerate(["code", "text", "code"])]
    rounded = {"type": "quantize.rtn", "bits": 4}

    def reading(*domains: str) -> Recipe:
        documents = [{"id": domain, "domain": domain, "text": TEXTS[0]} for domain in domains]
        looks = step(calibration={"source": "inline", "documents": documents})
        return RECIPE.validate_python([rounded, looks.model_dump()])

    assert loader(tiny()).unread(reading("prose"), scored) == ["code"]
    assert loader(tiny()).unread(reading("prose", "code"), scored) == []
    assert loader(tiny()).unread(reading("text"), scored) == [], "nothing is known of what has no names"
    assert loader(tiny()).unread(RECIPE.validate_python([rounded]), scored) == []
