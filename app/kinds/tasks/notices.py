"""What limits the results of tasks."""

from app.contracts.notice import Notices


class TasksNotice(Notices):
    """Of a tasks report."""

    EXECUTED_CODE = "Code that is run."
    NOT_SCORED = "{task} could not be scored: {why}."
    AT_CHANCE = "{task} shows nothing about damage: the reference itself answers at chance."
    CANDIDATE_AT_CHANCE = "On {task} the candidate is not shown to be better than guessing."
    SHORTENED_ITEMS = "{items:#item} of {task} lost {items:its|their} beginning to fit the model's context."
    NOT_FINITE = (
        "On {task} the {model} gives no number (NaN or infinity) at {positions} tokens of choices, in {items} of "
        "{asked} items. It never takes such a choice."
    )
