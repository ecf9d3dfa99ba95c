"""What limits a mitigation."""

from app.contracts.notice import Notices


class MitigateNotice(Notices):
    """Of a mitigate report."""

    SPEED_AND_MEMORY = (
        "Speed and memory as served: tokens/s are those of the scoring engine on this machine. Simulated models run "
        "at the reference's speed, not at that of a packed model."
    )
    FEW_TEST_DOCUMENTS = (
        "Only {documents:#test document}: intervals are clustered by windows, and are too narrow if windows of one "
        "document are alike."
    )
    LOOKS_AT_SENT_DOCUMENTS = (
        "The recommended recipe reads documents that were sent with the job. recipe.json contains them, this report "
        "does not."
    )
    LOOKS_AT_SAMPLED_TEXT = (
        "The recommended recipe reads text that is sampled from the reference. A deployment cannot sample it. Deploy "
        "the recipe with other calibration data, or run the job with `--checkpoint` and deploy its checkpoint."
    )
