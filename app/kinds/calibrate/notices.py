"""What limits or spoils a calibration's proof."""

from app.contracts.notice import Notices


class CalibrateNotice(Notices):
    """Of a calibrate report."""

    FEW_TEST_DOCUMENTS = (
        "Fewer than {fewest} test documents of {domains}: their intervals are clustered by windows and speak of these "
        "documents only, so the decision there is weaker than it looks."
    )
    NO_FITTED_DOMAIN = "No test document is of a fitted domain: all of them were judged together."
    NONFINITE_POSITIONS = (
        "{raw} raw and {calibrated} calibrated test positions had non-finite logits and are left out of every mean."
    )
