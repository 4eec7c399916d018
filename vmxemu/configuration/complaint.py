"""One line out of a schema's validation error: key path, what was expected, what was there."""

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vmxemu.configuration.errors import InputError


def complaint(where: str, error: ValidationError, model: type[BaseModel]) -> InputError:
    """The first problem as an InputError; others are counted."""
    problems = error.errors(include_url=False, include_context=True)
    first = problems[0]
    path = _path(first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InputError(f"{where}: {path}" if path else where, _say(first, model) + more)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _say(problem: ErrorDetails, model: type[BaseModel]) -> str:
    got = _brief(problem["input"])
    context = problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return "this key is missing"
        case "extra_forbidden":
            known = _keys(model, problem["loc"][:-1])
            return "unknown key" + (f"; expected one of {', '.join(known)}" if known else "")
        case "literal_error":
            return f"expected {context['expected']}, got {got}"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"expected at least {context['ge']}, got {got}"
        case "less_than_equal":
            return f"expected at most {context['le']}, got {got}"
        case "too_long":
            return f"expected at most {context['max_length']}, got {context['actual_length']}"
        case "less_than":
            return f"expected less than {context['lt']}, got {got}"
        case kind:
            expected = EXPECTED.get(kind.rpartition("_")[0]) or EXPECTED.get(kind)
            return f"expected {expected}, got {got}" if expected else f"{problem['msg']}, got {got}"


EXPECTED = {
    "int": "an integer",
    "int_from": "an integer",
    "bool": "true or false",
    "string": "text",
    "model": "a table",
    "model_attributes": "a table",
    "dict": "a table",
    "list": "an array",
    "tuple": "an array",
    "float": "a number",
}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at `path` knows."""
    for step in path:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        found = _model_in(field.annotation) if field else None
        if found is None:
            return []
        model = found
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
