"""What limits or spoils a sweep."""

from app.contracts.notice import Notices


class SweepNotice(Notices):
    """Of a sweep's report."""

    SETTINGS_BETWEEN = "Settings between and beyond those that were measured: what is reported of them is interpolated."
    LONGER_THAN_REFERENCE = (
        "The windows are longer than the reference's context of {tokens} tokens. From position {position} on the "
        "reference reads only the newest tokens of the window. KL there holds what the longer context changes as well "
        "as what it damages: a perplexity ratio below 1 says that it helps. Limits are over both ranges; a comparison "
        "at one setting distinguishes them by position."
    )
    REFUSED_SETTINGS = "{settings:#setting} could not be made or run, and {settings:is|are} in no curve."
    NONFINITE_SETTINGS = (
        "At {settings:#setting} some logits are not finite: {settings:it counts|they count} as collapse, and "
        "{settings:is|are} in no curve."
    )
    SHARED_SHARES = (
        "Some settings remove the same share of the model. Their order is that of the measured damage, the mildest "
        "first{fits:; * hold the one that was asked for first}."
    )
