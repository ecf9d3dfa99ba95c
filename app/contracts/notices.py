"""Notices of reports of several kinds, of thresholds and of differences."""

from app.contracts.notice import Notices


class Untested(Notices):
    """What a verdict does not speak of."""

    FREE_RUNNING_GENERATION = (
        "Free-running generation: every position was scored after the given text, so errors that build up over the "
        "candidate's own output are not seen."
    )
    TASKS = "Tasks: no {not_run} or program was run; divergence does not show which answers change."
    OTHER_TASKS = "Tasks other than {tasks}: a model may lose there what it keeps here."
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
    """What spoils or limits the numbers."""

    SAME_MODEL = (
        "Both models have the same weights and the candidate has no recipe: this compares a model with itself. Give a "
        "recipe, or another model as candidate."
    )
    ROUNDED_WEIGHTS = (
        "Weights of {model} are stored as {stored} and run in {dtype}. What {dtype} cannot hold of them is rounded "
        'away before anything is compared, so no number here says what that costs. With dtype = "{stored}" of both '
        "models in models.toml they run as they are."
    )
    PACKED_REFERENCE = (
        "The reference is packed ({scheme}) and the candidate is not: they run on other kernels, and what those round "
        "differently is part of the difference."
    )
    UNKNOWN_KERNEL_TERM = (
        "The candidate is packed as {format}, which is not unpacked here: what its kernels add to the difference (the "
        "kernel term) is not known."
    )
    LONGER_THAN_REFERENCE = (
        "The windows are longer than the reference's context of {tokens} tokens. From position {position} on the "
        "reference reads only the newest tokens of the window. KL there holds what the longer context changes as well "
        "as what it damages: a perplexity ratio below 1 says that it helps. The slices by position tell the two ranges "
        "apart; the verdict is over both."
    )
    FEW_DOCUMENTS = (
        "Only {documents:#document}: intervals are clustered by windows, and are too narrow where windows of one "
        "document are alike. More documents make them sound."
    )
    REPEATED_DOCUMENTS = (
        "{repeated} of {documents} documents {repeated:repeats|repeat} an earlier one. Intervals take documents for "
        "independent, and are too narrow where some are not: leave the copies out."
    )
    LONE_TOKENS = "{tokens:#last token} of documents stood alone in a window and {tokens:was|were} not scored."
    NONFINITE_POSITIONS = "{positions:#position} had non-finite logits and {positions:is|are} left out of every mean."
    LOOKED_AT = (
        "{documents:#{what}} {documents:was|were} also looked at by {by}, as allow_overlap permits: what is fitted on "
        "a text looks better on it than it is."
    )
    USED_BEFORE = (
        "{documents:#document} of the {set} set {documents:is|are} the same as one of an earlier set, and "
        "{documents:was|were} left out."
    )
    REPEATED_IN_SET = (
        "{documents:#document} of the {set} set {documents:repeats|repeat} an earlier one of the same set, and "
        "{documents:was|were} left out."
    )


class ThresholdNotice(Notices):
    """Of where a curve turns."""

    BOUNDS_LEFT_OUT = (
        "bounds were asked for on {coefficients}: they are of the form that is fitted to the perplexity; KL is fitted "
        "without them, and only bounds of s0 hold for both"
    )
    AT_BOUND = "{coefficient} rests on its bound, {value:g}: s0 moves with it"
    FALLING = "the curve falls over the measured range: this is no loss that grows"
    LACK_OF_FIT = "the published form does not fit (p = {p:.2g}): its interval takes it for right"
    NOT_WHERE_IT_TURNS = (
        "s0 and its interval are those of the published form, which does not show where the curve turns"
    )
    TOO_FEW_FOR_AICC = "there are too few points for AICc to judge the published form"
    BETTER_FORM = "{form} describes the curve better (AICc {difference:+.1f})"
    GRADUAL = "the change of {form} is gradual, with its middle at {middle:.3g}: s0 is how the published form sees it"
    NEAR_LOSSLESS = (
        "no perplexity of the curve is more than {percent:.2g} % above the unmodified model's: s0 is where the curve "
        "bends, and not where anything breaks"
    )


class DiffNotice(Notices):
    """Of `hemostat diff`."""

    NONFINITE_POSITIONS = (
        "{report} has {positions:#position} whose logits are not finite. {positions:It is|They are} left out for every "
        "report, so that {report} looks better than it is."
    )
    FEW_SHARED_POSITIONS = "Only {shared} positions are shared; the reports scored at least {scored} each."
    TOO_MANY_DIFFERENCES = (
        "{differences} differences by {slice} are corrected together, and the bootstrap shows no p below {least:.1g}: "
        "none of them can be found. Compare fewer candidates at once for differences by {slice}."
    )
    FEW_DOCUMENTS = "Only {documents:#document}: intervals and p-values are clustered by windows."
