"""What limits the proof of a calibration."""

from app.contracts.notice import Notices


class CalibrateNotice(Notices):
    """Of a calibrate report."""

    FEW_TEST_DOCUMENTS = (
        "Fewer than {fewest} test documents of {domains}: their intervals are clustered by windows and hold for "
        "these documents only. The decision on these domains is weaker than it looks."
    )
    NO_FITTED_DOMAIN = "No test document is of a fitted domain: all of them were judged together."
    NONFINITE_POSITIONS = (
        "{raw} raw and {calibrated} calibrated test positions had non-finite logits and are left out of every mean."
    )
