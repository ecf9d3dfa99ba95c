"""What limits a sweep."""

from app.contracts.notice import Notices


class SweepNotice(Notices):
    """Of a sweep's report."""

    SETTINGS_BETWEEN = "Settings between and beyond the measured ones: their values are interpolated."
    LONGER_THAN_REFERENCE = (
        "The windows are longer than the reference's context of {tokens} tokens. From position {position} on the "
        "reference reads only the newest tokens of the window. KL beyond that position includes what the longer "
        "context improves: there, a perplexity ratio below 1 shows that it helps. Limits are over both ranges; a "
        "comparison at one setting separates them by position."
    )
    REFUSED_SETTINGS = "{settings:#setting} could not be made or run, and {settings:is|are} in no curve."
    NONFINITE_SETTINGS = (
        "At {settings:#setting} some logits are not finite. {settings:It counts|They count} as collapse, and "
        "{settings:is|are} in no curve."
    )
    SHARED_SHARES = (
        "Some settings remove the same share of the model. They are in the order of measured damage, mildest "
        "first{fits:; * use the setting that was requested first}."
    )
