"""What a mitigate job leaves, also where the disk takes no more."""

import errno
import json
import zipfile
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.models.checkpoint import inspect
from tests.support.disk import files_of_at_most
from tests.support.quantizing import tensors
from tests.unit.workers.mitigation.repair.support import RTN, operate, repair
from workers.diagnosis.mitigate.export import export, leave, write_recipe
from workers.measuring.subject import recipe_of


class Context:
    """Where artifacts go."""

    def __init__(self, output):
        self.output, self.checks = output, 0
        output.mkdir()

    def check_cancelled(self):
        self.checks += 1


@pytest.mark.parametrize(("number", "error"), [(errno.EDQUOT, HemostatError), (errno.EIO, OSError)])
def test_values_that_the_disk_does_not_take_are_told_and_another_fault_stays_what_it_is(tmp_path, number, error):
    def write(*_):
        raise OSError(number, "it cannot be written")

    raw, part = SimpleNamespace(values=SimpleNamespace(to_parquet=write)), SimpleNamespace(where=None)
    tested, sets = SimpleNamespace(raw=raw, part=part), SimpleNamespace(test=SimpleNamespace(documents=()))
    with pytest.raises(error) as caught:
        export(SimpleNamespace(helped=False), tested, sets, None, None, None, SimpleNamespace(output=tmp_path))
    if error is HemostatError:
        assert caught.value.code is ErrorCode.DISK_FULL
        assert "candidate.parquet could not be written" in caught.value.detail


def test_the_file_that_the_disk_does_not_take_is_named(tmp_path):
    """Of a real limit on the size of a file, which is told by another number than a disk without room."""
    adapter = tmp_path / "made" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(bytes(10_000))
    left = Context(tmp_path / "left")
    with pytest.raises(HemostatError) as caught, files_of_at_most(5_000):
        leave(tmp_path / "made", left, checkpoint=True)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert "adapter.zip could not be written (File too large)" in caught.value.detail
    assert "allow larger files" in caught.value.hint
    asked = MitigateRequest.model_validate(
        {"kind": "mitigate", "reference": {"model": "a"}, "candidate": {"model": "b"}}
    )
    with pytest.raises(HemostatError, match=r"recipe\.json could not be written"), files_of_at_most(10):
        write_recipe(recipe_of([RTN]), asked, tmp_path)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_checkpoint_is_one_with_the_repair_beside_it(tiny, tmp_path, rounds):
    """All files of a job lie in one folder, which is read as what it was made as: the LoRA is not put on once more."""
    left = Context(tmp_path / "left")
    with (
        operate(tiny(), tmp_path / "store", RTN) as wounded,
        operate(tiny(), tmp_path / "store", RTN, repair(distill_steps=2, iterations=rounds)) as made,
    ):
        base = made.path / "base" if rounds > 1 else wounded.path
        assert base.is_dir()
        names = leave(made.path, left, checkpoint=True)
        assert sorted(names) == sorted(file.name for file in left.output.iterdir())
        assert "adapter.zip" in names
        whole = tensors(made.path)
        inspect(left.output)
        state = AutoModelForCausalLM.from_pretrained(left.output).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())
        with zipfile.ZipFile(left.output / "adapter.zip") as packed:
            packed.extractall(tmp_path / "apart")
        on = tmp_path / "apart" / "base" if rounds > 1 else base
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(on), str(tmp_path / "apart" / "adapter"))
        merged = model.merge_and_unload().state_dict()
        assert all(torch.allclose(merged[name].float(), tensor.float(), atol=1e-2) for name, tensor in whole.items())
    assert left.checks > len(names)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_repair_alone_is_left_where_there_is_something_that_it_goes_on(tiny, tmp_path, rounds):
    left = Context(tmp_path / "left")
    with operate(tiny(), tmp_path / "store", RTN, repair(distill_steps=2, iterations=rounds)) as made:
        names = leave(made.path, left, checkpoint=False)
    assert names == (["adapter_config.json", "adapter_model.safetensors"] if rounds == 1 else [])


@pytest.mark.parametrize("allowed", [False, True])
def test_the_body_of_a_compare_job_is_one_and_allows_what_was_allowed(tmp_path, *, allowed):
    fields = {
        "kind": "mitigate",
        "reference": {"model": "one"},
        "candidate": {"model": "other"},
        "window": 256,
        "seed": 3,
    }
    asked = MitigateRequest.model_validate(fields | {"allow_overlap": allowed})
    write_recipe(recipe_of([RTN]), asked, tmp_path)
    body = CompareRequest.model_validate_json((tmp_path / "compare.json").read_bytes())
    assert (body.window, body.seed, body.allow_overlap) == (256, 3, allowed)
    assert (body.reference.model, body.candidate.model) == ("one", "other")
    assert body.candidate.recipe == recipe_of(json.loads((tmp_path / "recipe.json").read_text())) == recipe_of([RTN])
