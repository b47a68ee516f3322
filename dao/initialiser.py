"""The `__init__` of the records: it does the same as the one that attrs makes, in a third of the time.

It turns the values into a row, which is what will be stored, and leaves the columns to be decoded when they are read,
as those of a row from the database are. A value that does not pass its checks goes to the `__init__` by attrs, which
raises the error, or accepts it after all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import attrs

from dao import codec, fields

__all__ = ["initialiser"]

# For each validator an expression that is true only of values that it accepts. `isascii` raises for other objects.
_TEXT = "'\\0' not in {0} and (isascii({0}) or is_unicode({0}))"
_PASSES: dict[object, str] = {
    fields.text: _TEXT,
    fields.not_blank: f"{_TEXT} and {{0}}.strip()",
    fields.not_empty: f"{_TEXT} and {{0}}",
    fields.boolean: "type({0}) is bool",
}
# For each factory of defaults an expression for its value in a row.
_MADE: dict[object, str] = {
    codec.new_id: "new_id()",
    codec.now: "now_to_text()",
    dict: "'{}'",
    fields.when_created: "created_at_",
}
_SCOPE: dict[str, Any] = {
    "NOTHING": attrs.NOTHING,
    "is_unicode": fields.is_unicode,
    "isascii": str.isascii,
    "json_text": codec.plain_json_text,
    "new_id": codec.new_id,
    "now_to_text": codec.now_to_text,
    "time_to_text": codec.time_to_text,
    "turn": object.__setattr__,
}


def _passes(validator: object) -> str:
    if isinstance(validator, fields.whole):
        return f"type({{0}}) is int and {validator.least} <= {{0}} <= {validator.most}"
    return _PASSES[validator]


def initialiser(record: type, twin: type, later: Collection[str]) -> Callable[..., None]:
    """Return the `__init__` of a record's class, generated as attrs generates its own.

    `twin` is a class of the same layout that can be assigned to; `later` names the columns that are decoded later.
    """
    by_attrs: Callable[..., None] = record.__init__  # type: ignore[misc] # that of this very class
    scope = {**_SCOPE, "by_attrs": by_attrs, "record_class": record, "twin": twin}
    parameters, checks, steps, row, assigned = [], ["type(self) is record_class"], [], [], []
    for field in attrs.fields(record):
        name, default = field.name, field.default
        check = step = None
        if field.validator is not None:
            check = _passes(getattr(field.validator, "validator", field.validator)).format(name)
        elif field.metadata.get("column") == "json":
            step = f"json_text({name}, {name!r})"
            check = f"isinstance({name}, dict)" if str(field.type).startswith("dict") else None
        elif field.metadata.get("column") == "time":
            step = f"time_to_text({name})"
        else:
            step = f"{name}_members[{name}]"
            scope[f"{name}_members"] = fields.members(field)
        if default is attrs.NOTHING:
            parameters.append(name)
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type] # it is a class, and typed as a function
            parameters.append(f"{name}=NOTHING")
            check = check and f"({name} is NOTHING or {check})"
            step = f"{_MADE[default.factory]} if {name} is NOTHING else {step or name}"
        else:
            parameters.append(f"{name}={name}_default")
            scope[f"{name}_default"] = default
            if default is None:
                check = check and f"({name} is None or {check})"
                step = step and f"None if {name} is None else {step}"
        if check:
            checks.append(check)
        # under another name: if a later check fails, the one by attrs gets the values as they were given
        row.append(f"{name}_" if step else name)
        if step:
            steps.append(f"{name}_ = {step}")
        if field.metadata.get("column") == "json":
            assigned.append(f"self._{name} = row")
        else:
            assigned.append(f"self.{'_' if name in later else ''}{name} = {row[-1]}")
    check = "self._check()" if hasattr(record, "__attrs_post_init__") else ""
    source = f"""
def __init__(self, *, {", ".join(parameters)}):
    try:
        if {" and ".join(checks)}:
            {"; ".join(steps)}
            row = ({", ".join(row)},)
            turn(self, "__class__", twin)
            {"; ".join(assigned)}
            self.__class__ = record_class
            {check}
            return
    except Exception:
        pass
    by_attrs(self, {", ".join(f"{field.name}={field.name}" for field in attrs.fields(record))})
"""
    exec(source, scope)  # noqa: S102 - of field names only
    made: Callable[..., None] = functools.wraps(by_attrs)(scope["__init__"])
    # of Python 3.14 and later `wraps` copies what evaluates them, which attrs' has not
    made.__annotations__ = by_attrs.__annotations__
    return made
