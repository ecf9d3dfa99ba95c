"""Notices of reports of several kinds, of thresholds and of differences."""

from app.contracts.notice import Notices


class Untested(Notices):
    """What a verdict says nothing about."""

    FREE_RUNNING_GENERATION = (
        "Free generation: every position was scored after the given text. Errors that build up over the candidate's "
        "own output are not measured."
    )
    TASKS = "Tasks: no {not_run} or program was run. Divergence does not show which answers change."
    OTHER_TASKS = "Tasks other than {tasks}: a model may lose more on them."
    LONG_CONTEXT = "Long context: no scored position has more than {tokens:#token} before it."
    OTHER_DOMAINS = "Other domains and languages than those of the text{domains: (*)}."
    SAMPLING_SETTINGS = (
        "Sampling settings: the full distributions are compared at temperature 1, without truncation or penalties."
    )
    CONVERSATIONS = "Conversations: the text was scored as it is, without a chat template."
    PLAIN_TEXT = "Plain text: every document is a conversation."
    TURNS_OF_USERS = "Messages of users: in conversations only the assistant's messages are scored."
    TEXT_BY_PEOPLE = "Text written by people: the reference wrote the scored text."
    TEXT_OF_THE_MODEL = "Text written by the reference: none was scored."
    SPEED_AND_MEMORY = "Speed and memory of the candidate as it is served."


class Warned(Notices):
    """What limits the numbers."""

    SAME_MODEL = (
        "Both models have the same weights, and the candidate has no recipe. This compares a model with itself. Give "
        "a recipe, or another model as candidate."
    )
    ROUNDED_WEIGHTS = (
        "Weights of {model} are stored as {stored} and run in {dtype}. They are rounded to {dtype} before the "
        "comparison, so no number here includes that loss. To run them unrounded, set "
        'dtype = "{stored}" for both models in models.toml.'
    )
    PACKED_REFERENCE = (
        "The reference is packed ({scheme}) and the candidate is not, so they run on different kernels. The kernels' "
        "different rounding is part of the difference."
    )
    UNKNOWN_KERNEL_TERM = (
        "The candidate is packed as {format}, which Hemostat cannot unpack. The part of the difference that its "
        "kernels add (the kernel term) is not known."
    )
    LONGER_THAN_REFERENCE = (
        "The windows are longer than the reference's context of {tokens} tokens. From position {position} on the "
        "reference reads only the newest tokens of the window. KL beyond that position includes what the longer "
        "context improves: there, a perplexity ratio below 1 shows that it helps. The slices by position separate "
        "the two ranges; the verdict is over both."
    )
    FEW_DOCUMENTS = (
        "Only {documents:#document}: intervals are clustered by windows, and are too narrow if windows of one "
        "document are alike. Give more documents."
    )
    REPEATED_DOCUMENTS = (
        "{repeated} of {documents} documents {repeated:repeats|repeat} an earlier one. Intervals assume independent "
        "documents, and are too narrow with copies: leave the copies out."
    )
    LONE_TOKENS = (
        "{tokens:#last token} of documents {tokens:was|were} alone in a window and {tokens:was|were} not scored."
    )
    NONFINITE_POSITIONS = "{positions:#position} had non-finite logits and {positions:is|are} left out of every mean."
    LOOKED_AT = (
        "{documents:#{what}} {documents:was|were} also read by {by}, as allow_overlap permits. A result looks too "
        "good on the text that it was fitted on."
    )
    UNREAD_DOMAINS = (
        "The recipe's calibration data has no document of {domains:4}. Calibrated steps lose more on text unlike their "
        "calibration data: give data like the text that is scored."
    )
    USED_BEFORE = (
        "{documents:#document} of the {set} set {documents:is|are} also in an earlier set, and {documents:was|were} "
        "left out."
    )
    REPEATED_IN_SET = (
        "{documents:#document} of the {set} set {documents:repeats|repeat} an earlier document of the set, and "
        "{documents:was|were} left out."
    )


class ThresholdNotice(Notices):
    """Of where a curve turns."""

    BOUNDS_LEFT_OUT = (
        "the bounds on {coefficients} hold for the fit to the perplexity only; the fit to KL ignores all bounds "
        "except those of s0"
    )
    AT_BOUND = "{coefficient} is at its bound, {value:g}: another bound gives another s0"
    FALLING = "the curve falls over the measured range: it shows no growing loss"
    LACK_OF_FIT = "the published form does not fit (p = {p:.2g}), and its interval assumes that it does"
    NOT_WHERE_IT_TURNS = (
        "s0 and its interval are those of the published form, which does not show the knee of this curve"
    )
    TOO_FEW_FOR_AICC = "there are too few points for AICc to judge the published form"
    BETTER_FORM = "{form} describes the curve better (AICc {difference:+.1f})"
    GRADUAL = (
        "the change of {form} is gradual, with its middle at {middle:.3g}: the published form has its knee s0 at "
        "another place"
    )
    NEAR_LOSSLESS = (
        "no perplexity of the curve is more than {percent:.2g} % above the unmodified model's: the curve bends at "
        "s0, but nothing breaks there"
    )


class DiffNotice(Notices):
    """Of `hemostat diff`."""

    NONFINITE_POSITIONS = (
        "{report} has {positions:#position} whose logits are not finite. {positions:It is|They are} left out for "
        "every report, so {report} looks better than it is."
    )
    FEW_SHARED_POSITIONS = "Only {shared} positions are shared; the reports scored at least {scored} each."
    TOO_MANY_DIFFERENCES = (
        "{differences} differences by {slice} are corrected together. The bootstrap gives no p below {least:.1g}, so "
        "no difference can be shown. Compare fewer candidates at once."
    )
    FEW_DOCUMENTS = "Only {documents:#document}: intervals and p-values are clustered by windows."
