"""What is wrong with a line that should be a document, in words that repeat nothing of the document."""

from pydantic import ValidationError

from app.contracts.text import Document
from app.models.nearest import meant

HINT = "A document has an id, a domain (optional), and either text or messages."


def document_faults(error: ValidationError) -> str:
    """Every fault by the name of its field; of a name that a document has not, the nearest that it has.

    pydantic's own text would quote its input, which is somebody's document.
    """
    told = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
            near = meant(field, Document.model_fields)
            told.append(f"there is no field {field[:64]!a}" + (f"; {near}" if near else ""))
        else:
            told.append(f"{field}: {problem['msg']}" if field else problem["msg"])
    return "; ".join(told)
