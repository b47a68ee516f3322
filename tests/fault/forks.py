"""The beginning of programs that fork, for the tests of either engine."""

from __future__ import annotations

__all__ = ["FORKING"]

#: After the imports: what a child did is told in a line, as `name: done`, or with its error.
FORKING = """
import os, sys, warnings
from dao import Task, tasks

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads

def told(name, function):
    try:
        function()
        outcome = "done"
    except Exception as error:
        outcome = type(error).__name__ + (", way out" if "spawn or forkserver" in str(error) else f": {error}")
    print(name, outcome, sep=": ", flush=True)

def child(name, function):
    process = os.fork()
    if not process:
        told(name, function)
        sys.exit(0)
    assert os.waitpid(process, 0)[1] == 0

def add(connection, title="a"):
    tasks.create(connection, Task(title=title, task_type="agent"))
"""
