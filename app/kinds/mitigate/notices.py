"""What limits or spoils a mitigation."""

from app.contracts.notice import Notices


class MitigateNotice(Notices):
    """Of a mitigate report."""

    SPEED_AND_MEMORY = (
        "Speed and memory as served: tokens/s are those of the engine that scores, on this machine; what is simulated "
        "runs as the reference does, whatever it would take packed."
    )
    FEW_TEST_DOCUMENTS = (
        "Only {documents:#test document}: intervals are clustered by windows, and are too narrow where windows of one "
        "document are alike."
    )
    LOOKS_AT_SENT_DOCUMENTS = (
        "The recommended recipe looks at documents that were sent with the job: recipe.json holds them, this report "
        "does not."
    )
    LOOKS_AT_SAMPLED_TEXT = (
        "The recommended recipe looks at text that is sampled from the reference, which a deployment cannot do. Deploy "
        "it with other calibration data, or deploy the checkpoint of a job with export checkpoint."
    )
