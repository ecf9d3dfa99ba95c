"""What steps of recipes warn of."""

from collections.abc import Sequence

from app.contracts.notice import Notice, Notices


def made(name: str, warning: Notice, steps: Sequence[str] = ()) -> Notice:
    """A step's warning in the report: of making the model that people call `name`, by these steps."""
    by = f" by {' and '.join(steps)}" if steps else ""
    facts = warning.facts | {"made": name, "made_by": tuple(steps)}
    return Notice(code=warning.code, text=f"Of making {name}{by}: {warning.text}", facts=facts)


class StepNotice(Notices):
    """What the user should know of a result."""

    SINGULAR_MOMENT = (
        "{tokens} calibration tokens are fewer than the {inputs} inputs of the widest layer: its second moment is "
        "singular, and damping decides what the text does not"
    )
    MORE_DAMPING = "a second moment could not be inverted with damping {asked:g}; {damping:g} was used"
    SINGULAR_COVARIANCE = (
        "{tokens} calibration tokens for {inputs} inputs ({module}): the covariance is singular, and damping alone "
        "regularizes it; give more windows"
    )
    TOO_LITTLE_DAMPING = "damping {asked:g} did not make the covariance positive definite ({module})"
    REGULARIZED_MOMENT = (
        "the calibration data are too short for the second moment of {inputs} inputs: it was regularized by {share:g} "
        "of its mean diagonal"
    )
    INPUTS_NEVER_SHOWN = (
        "{tokens} calibration tokens do not span the {inputs} inputs of the widest layer: what they never show is "
        "repaired as if its power were small"
    )
    SHORT_CALIBRATION_TEXT = "the calibration data have {windows:#window} of {window} tokens, {asked} were asked for"
    LONGER_THAN_CONTEXT = "calibration windows of {window} tokens are longer than the model's context of {context}"
    WITHOUT_RUNTIME_QUANTIZATION = "the text was run without what the steps before quantize at run time"
    WEIGHTS_NOT_ADDRESSED = "{weights} weights of the adapter are not addressed by the step"
    DENSE_PRODUCT = (
        "served as the dense product of the factors, since vLLM's linear layers have no other form. Weight files and "
        "speed are those of dense weights, bits and bytes what two factors would take"
    )
    FACTORS_TOO_LARGE = (
        "at this rank the two factors of {larger} of {weights} weights, such as {first}, would take more than the "
        "weight itself; they are counted as dense"
    )
    OWL_ROUNDS_AWAY = (
        "every layer keeps {kept}:{of}, as with allocation uniform: OWL's shares round to it. A greater owl_range, or "
        "a greater M may change that"
    )
    OWL_UNLIKE_LAYERS = (
        "every layer keeps {kept}:{of}, as with allocation uniform: what is addressed differs in size from layer to "
        "layer. The same modules in each layer may change that"
    )
    INEXACT_TEMPERATURE = (
        "temperature {temperature:g} is not exact. Rounded to the checkpoint's dtype, the final norm's gains are off "
        "by {percent:.2g} % (root mean square), more than the dtype's own precision of {precision:.2g} %"
    )
    FIRST_LAYERS_MISSING = (
        "the reference's first {layers} layers are missing; what they did is left to distillation, as no layer is "
        "before them"
    )
    EMPTY_ADAPTER = "nothing helped on windows that took no part in the fit: the adapter is empty"
    NO_HELP_OF_DISTILLATION = "distillation did not help on windows that took no part in it: what it began from is kept"
    NO_HELP_OF_BLOCKS = "fitting block by block did not help on windows that took no part in it"
    NO_HELP_OF_RECOVERY = (
        "recovery did not help on windows that took no part in it ({before} nats before, {after} after {steps} "
        "steps): what was there before it is kept. Give it more calibration data"
    )
    OTHER_SHAPE = (
        "the steps before have changed the model's shape or the order of its layers: pruning keeps close to the model "
        "as they left it, not to the reference"
    )
    LEAST_BITS = "a mean of {bits:g} bits is the least that a module may have: all have it"
    SIMULATED = "simulated: weights take their source's dtype on disk; bits are what they would take packed"
    NO_BIASES = "the architecture has no biases: mean shifts are made good by weights and norms alone"
