"""Warnings of recipe steps."""

from collections.abc import Sequence

from app.contracts.notice import Notice, Notices


def made(name: str, warning: Notice, steps: Sequence[str] = ()) -> Notice:
    """A step's warning in the report: of making the model that people call `name`, by these steps."""
    by = f" by {' and '.join(steps)}" if steps else ""
    facts = warning.facts | {"made": name, "made_by": tuple(steps)}
    return Notice(code=warning.code, text=f"Of making {name}{by}: {warning.text}", facts=facts)


class StepNotice(Notices):
    """What the user should know about a result."""

    SINGULAR_MOMENT = (
        "{tokens} calibration tokens are fewer than the {inputs} inputs of the widest layer. Its second moment is "
        "singular: damping decides the directions without text. Give more windows"
    )
    MORE_DAMPING = "a second moment could not be inverted with damping {asked:g}; {damping:g} was used"
    SINGULAR_COVARIANCE = (
        "{tokens} calibration tokens for {inputs} inputs ({module}): the covariance is singular, and only damping "
        "regularizes it; give more windows"
    )
    TOO_LITTLE_DAMPING = "damping {asked:g} did not make the covariance positive definite ({module})"
    REGULARIZED_MOMENT = (
        "the calibration data are too short for the second moment of {inputs} inputs. It was regularized by "
        "{share:g} of its mean diagonal"
    )
    INPUTS_NEVER_SHOWN = (
        "{tokens} calibration tokens do not span the {inputs} inputs of the widest layer. Directions without text "
        "are repaired as if their power were small"
    )
    SHORT_FOR_WIDEST_LAYER = (
        "the calibration data have {tokens} tokens. {enough} are wanted: {each} per input of the widest layer. Give "
        "more text as `calibration`, such as a file or `self`"
    )
    SHORT_CALIBRATION_TEXT = "the calibration data have {windows:#window} of {window} tokens, {asked} were asked for"
    LONGER_THAN_CONTEXT = "calibration windows of {window} tokens are longer than the model's context of {context}"
    WITHOUT_RUNTIME_QUANTIZATION = "the text was run without the run-time quantization of earlier steps"
    WEIGHTS_NOT_ADDRESSED = "the step's layers and modules leave out {weights} weights of the adapter"
    DENSE_PRODUCT = (
        "served as the dense product of the factors, because vLLM's linear layers have no other form. Weight files "
        "and speed are those of dense weights. Bits and bytes are those of two factors"
    )
    FACTORS_TOO_LARGE = (
        "at this rank, {larger} of {weights} weights, such as {first}, are smaller than their two factors; they are "
        "counted as dense"
    )
    OWL_ROUNDS_AWAY = (
        "every layer keeps {kept}:{of}, as with allocation uniform: OWL's shares round to it. A greater owl_range or "
        "a greater M may change that"
    )
    OWL_UNLIKE_LAYERS = (
        "every layer keeps {kept}:{of}, as with allocation uniform, because the step's modules differ in size from "
        "layer to layer. The same modules in each layer may change that"
    )
    INEXACT_TEMPERATURE = (
        "temperature {temperature:g} is not exact. The final norm's gains, rounded to the checkpoint's dtype, are "
        "off by {percent:.2g} % (root mean square). The dtype's own precision is {precision:.2g} %"
    )
    FIRST_LAYERS_MISSING = (
        "the reference's first {layers} layers are missing; only distillation can replace them, because no layer is "
        "before them"
    )
    EMPTY_ADAPTER = "nothing helped on windows that took no part in the fit: the adapter is empty"
    NO_HELP_OF_DISTILLATION = (
        "distillation did not help on windows that took no part in it: the model before it is kept"
    )
    NO_HELP_OF_BLOCKS = "fitting block by block did not help on windows that took no part in it"
    NO_HELP_OF_RECOVERY = (
        "recovery did not help on windows that took no part in it: {before} nats before, {after} after {steps} "
        "steps. The model before it is kept. Give it more calibration data"
    )
    OTHER_SHAPE = (
        "earlier steps changed the model's shape or the order of its layers. Pruning stays close to the model after "
        "these steps, not to the reference"
    )
    LEAST_BITS = "a module has at least {bits:g} bits, which is the mean: every module has it"
    SIMULATED = "simulated: weights on disk have their source's dtype; bits are those of the packed form"
    NO_BIASES = "the architecture has no biases: only weights and norms compensate shifts of the mean"
