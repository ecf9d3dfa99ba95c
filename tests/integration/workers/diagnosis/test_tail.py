"""The job of a kind that only tests know, with a real engine on a tiny model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from app.settings import Settings
from tests.support.attempts import Context
from tests.support.tail_job import tail
from tests.support.tail_kind import TailRequest
from workers.engine.room import EngineRoom
from workers.measuring.pair import TOKENS_FILE


def test_it_counts_over_a_comparison_and_has_its_envelope_and_its_metric(
    tiny: Callable[..., Path], home_of: Callable[..., Settings], room: EngineRoom, tmp_path: Path
) -> None:
    documents = [{"id": f"d{index}", "text": " ".join(f"w{number}" for number in range(40))} for index in range(3)]
    asked = TailRequest.model_validate(
        {
            "kind": "tail",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 2}]},
            "text": {"source": "inline", "documents": documents},
            "above": 1e-4,
        }
    )
    context = Context(home_of({"tiny": tiny("llama")}), tmp_path)
    report = tail(asked, context, room)
    kl = pq.read_table(context.output / TOKENS_FILE)["kl"].to_numpy()
    assert report.share == np.mean(kl > 1e-4)
    assert 0 < report.share <= 1
    assert (report.kind, report.tokens) == ("tail", kl.size)
    assert report.request is not None and report.request["above"] == 1e-4
    assert ("tail_ratio", report.share, report.labels()) in context.samples
    assert context.phases[-1] == "tail"
