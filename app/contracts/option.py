"""How the command line writes a field of a request, if the field's name and type do not say it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """Metadata of a field, in `Annotated`. Without it a plain field `name` is the option `--name`.

    `shape`: how a value is written in a word, a name of `app.commands.shapes.SHAPES`. `sets`: the option takes no value
    and sets this one. `help`: in place of the field's description. `hidden`: no option.
    """

    flag: str = ""
    shape: str = ""
    sets: Any = None
    help: str = ""
    hidden: bool = False
