"""The errors that the docstrings of public functions name are those that are raised."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import dao
from dao import errors
from tests.contract.test_wrong_values import wrong_calls
from tests.site import PUBLIC

#: A key or a filter that no row can have, and a time without a zone, are refused by all: `dao` itself says that.
BY_ALL = re.compile(
    r"(id|key|prefix|\w+_id|depends_on|seq|execution|status|task_type|tool_name|workspace_path|now|since|until|run_at)="
)


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each public function, and each method of a public class, by name."""
    for module in (dao, *(importlib.import_module(f"dao.{name}") for name in PUBLIC)):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isfunction(found):
                yield f"{module.__name__}.{name}", found
            elif inspect.isclass(found) and found.__module__.startswith("dao."):
                for method, function in vars(found).items():
                    if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
                        yield f"{module.__name__}.{name}.{method}", function


FUNCTIONS = dict(public())


def named(function: Callable[..., Any]) -> list[str]:
    """Return the errors that a docstring names."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Raises:\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    told = re.findall(r"^ {4}([\w.]+(?:(?:, | and | or )[\w.]+)*):", section[1] if section else "", re.MULTILINE)
    return [name for names in told for name in re.split(", | and | or ", names)]


def kind(name: str) -> type[BaseException] | None:
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def test_errors_that_are_named_exist():
    """`migrate.load` named ValueError, and what is raised is an InvalidValue: `except dao.Error` catches it."""
    assert sum(map(len, map(named, FUNCTIONS.values()))) > 200
    wrong = [(name, error) for name, function in FUNCTIONS.items() for error in named(function) if kind(error) is None]
    assert wrong == []
    assert [name for name, function in FUNCTIONS.items() if "ValueError" in named(function)] == []


def test_errors_that_a_function_raises_itself_are_named():
    """One that is raised in the function's own words is named in its docstring, or a class that it is of."""
    silent = []
    for name, function in FUNCTIONS.items():
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        except OSError:  # generated, as the initialisers of records
            continue
        told = {error for one in named(function) if (error := kind(one))}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            raised = kind(ast.unparse(node.exc.func).rpartition(".")[2])
            if raised is not None and not any(issubclass(raised, one) for one in told):
                silent.append((name, raised.__name__))
    assert silent == []


def test_function_that_refuses_a_value_names_the_error():
    """A workflow's status that is none was refused in no words of the docstring, and neither was a batch of 0."""
    silent = []
    for call, function, _ in wrong_calls():
        called, _, argument = call.partition("(")
        text = inspect.getdoc(function) or ""
        while "InvalidValue" not in text and (other := re.search(r"(?:[Oo]therwise|[Ee]rrors) as `(\w+)`", text)):
            module = importlib.import_module(f"dao.{called.partition('.')[0]}")
            text = inspect.getdoc(getattr(module, other[1])) or ""
        if not BY_ALL.match(argument) and "InvalidValue" not in text:
            silent.append(call)
    assert silent == []
