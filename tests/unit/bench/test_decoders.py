"""The bench of decoders: which jobs it runs, what it writes down of a report, and how long it says texts took."""

from app.contracts.decoding import DECODERS
from app.kinds.trajectory.report import TrajectoryReport
from tests.bench.decoders import rows_of
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()
SECONDS = dict.fromkeys(DECODERS, 2.0)


def report(variant: str = "one") -> TrajectoryReport:
    return TrajectoryReport.model_validate(VARIANTS[variant])


def test_each_decoder_has_the_numbers_of_its_cell_and_of_both_texts() -> None:
    whole = report()
    values = {row[1:3]: row.value for row in rows_of(whole, SECONDS)}
    for cell, texts in zip(whole.cells, whole.reference_texts, strict=True):
        assert values[cell.decoder, "kl_factor"] == cell.amplification.kl.value
        if cell.amplification.kl.ci is not None:
            low, high = cell.amplification.kl.ci
            assert (low, high) == tuple(values[cell.decoder, f"kl_factor{end}"] for end in ("_low", "_high"))
        assert values[cell.decoder, "kl_reference_text"] == cell.kl_reference_text.mean
        assert cell.amplification.kl_candidate_text is not None
        assert values[cell.decoder, "kl_candidate_both"] == cell.amplification.kl_candidate_text.mean
        assert values[cell.decoder, "first_different"] == cell.first_divergence.median
        assert values[cell.decoder, "edit_distance_128"] == cell.edit_distance[-1].distance.mean
        assert values[cell.decoder, "repetition_reference"] == texts.text.repetition["4"].mean
        assert values[cell.decoder, "repetition_candidate"] == cell.text.repetition["4"].mean
        assert values[cell.decoder, "seconds"] == 2.0


def test_what_there_is_not_has_no_row() -> None:
    """Of texts that are the same there is neither a factor nor a median of where they part."""
    metrics = {row.metric for row in rows_of(report("same"), SECONDS)}
    assert not metrics & {"kl_factor", "kl_factor_low", "first_different"}
    assert "kl_reference_text" in metrics
