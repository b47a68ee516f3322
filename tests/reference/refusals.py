"""The refusals and errors of the commands, each with its cause and its cure, found in the source of `dao`.

`python -m tests.reference.refusals` writes `docs/reference/refusals.md` anew.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from dao import errors

__all__ = ["CURES", "PAGE", "Refusal", "page", "refusals"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "refusals.md"

# The rooms whose messages a command may print, in the order of the page.
_ROOMS = {
    "dao/cli": "The command line",
    "dao/url.py": "The database URL",
    "dao/settings.py": "The environment",
    "dao/engine/sqlite": "Opening and using a database",
    "dao/engine/postgresql": "Opening and using a database",
    "dao/migrate/database": "The database of a run",
    "dao/migrate/lock.py": "The database of a run",
    "dao/migrate/advisory_lock.py": "The database of a run",
    "dao/migrate/processes.py": "The database of a run",
    "dao/transfer": "Copying into another database",
    "dao/migrate/scripts": "The files",
    "dao/migrate/ledger": "The ledger and the files",
    "dao/migrate/run": "The run",
    "dao/migrate/schema": "Scripts and the schema",
    "dao/migrate/copies": "Snapshots, restoring and copies",
    "dao/migrate/rehearsal": "Rehearsal and verification",
    "dao/migrate/verification": "Rehearsal and verification",
    "dao/migrate/linting": "Rehearsal and verification",
    "dao/browsing": "Looking at a database",
    "dao/replication": "Replication",
}
_USAGE = {"UsageError", "BadParameter"}
_KINDS = {*errors.__all__, *_USAGE}
# Functions that make an error of a reason, which is this argument.
_OF_A_REASON = {"refuse": 1, "_refuse": 0, "_failed": 1, "failed": 0}
# A text of fewer is a part of a message.
_WORDS = 2
# A cure begins with one of these, after a colon, a semicolon or a full stop.
_IMPERATIVES = (
    "add|begin|bring|call|check|choose|close|commit|connect|correct|create|delete|drop|end|finish|free|give|install|keep|leave|let|load|"
    "look|make|mark|mend|mount|move|name|open|pass|put|raise|release|remove|rename|repeat|restore|return|roll|run|save|say|start|take|"
    "try|undo|use|wait|write|first|else|if|to mend"
)
_CURE = re.compile(rf"(?:: |; |\. |, or )((?:(?:{_IMPERATIVES})\b|`dao ).*)", re.DOTALL | re.IGNORECASE)


#: What to do where the message itself does not say it, since it is too plain, or stands in the details of the error.
CURES = {
    (
        "a function that runs in write shares its transaction with others, so it cannot *what*: return to have it "
        "committed, raise to have it undone, and use dao.transaction for a part of it"
    ): "return to have it committed, raise to have it undone, and use dao.transaction for a part of it",
    "*name* registers what the schema may not use: *reason*; *advice*": "register it as the message says",
    (
        "a snapshot of *path* cannot be verified (*error*): *hint*; or *otherwise*"
    ): "name what registers it with --prepare, or take it in that program, by migrate.take_snapshot(connection)",
    (
        "cannot call *name*: there is no module *name* in *folder*, nor where Python looks for modules; *advice*"
    ): "name one that can be imported, without .py",
    (
        "*database*: the stock yoyo applied or undid the latest migrations, and notes nothing of the schema that they "
        "leave; from the next `dao migrate` on it is known again"
    ): "run `dao migrate`",
    "*name* was not reset: you did not say yes. Nothing was changed": "repeat, and answer y, or give --yes",
    "*database* was not restored: you did not say yes. Nothing was changed": "repeat, and answer y, or give --yes",
    "--to goes with --from alembic: *tool*'s ledger says itself what is applied": "leave --to out",
    "--all goes with --rollback: migrate applies all anyway": "leave --all out, or add --rollback",
    "*given* exclude each other": "give one of them",
    "--output - and --json exclude each other": "give one of them",
    "--database names the database for --copy: without it, none is read": "add --copy, or leave --database out",
    "nan is no number.": "give a number, such as 5",
    "the *what* cannot be written to *file*: *strerror*": "check the folder and its permissions, and the disk",
    "*path*: the schema file cannot be read: *strerror*": "check its permissions, and the disk",
    "a database URL begins with its scheme: *forms**meant*": "write it in one of the forms that the message lists",
    "a name in the database URL is not UTF-8 once its %xx are decoded": "write the name in UTF-8",
    "the database URL has the parameter *name* twice": "leave one of them out",
    "*name* in the database URL: expected *expected*": "give one of the values that the message lists",
    "*what*: it is a folder, not a database file": "name the file in it",
    "*what*: it is a loop of symbolic links": "mend the links, or name the file itself",
    "*what*: it does not exist, and mode=*mode* creates nothing": "make it with `dao migrate`, or correct the name",
    "*called*: the commit failed (*error*), and whether it is stored cannot be known: *advice*, "
    "and look at what is there "
    "before you repeat it": (
        "as the message says: check the disk, look, then repeat; to repeat a run of migrations is safe"
    ),
    "a row holds a text that is not UTF-8: CAST(… AS BLOB) shows its bytes": "correct the row in SQL",
    "cannot read *path**suffix*: *strerror*": "check its permissions, and the disk",
    (
        "`-- foreign_keys: on` goes with a transaction; outside of one a script sets PRAGMA foreign_keys itself"
    ): "remove one of the two directives",
    "`-- allows: *value*` must be *forms*": "write it in one of the forms that the message lists",
    "`-- *name*:` stands here twice": "remove one of the lines",
    "`-- *name*: *value*` must be *sorted*": "write one of the values that the message lists",
    (
        "*folder*: not a folder; migrations are files in a folder"
    ): "name the folder with --migrations or DATABASE_MIGRATIONS",
    "*folder*: cannot be read: *strerror*": "check its permissions",
    "*name*=*function*: expected MODULE:FUNCTION, such as app.database:register": "write it in that form",
    "*path*:*line*: not a line of the form NAME=value": "correct the line, or put a # in front of it",
    "*name*=*values*: expected *what*, from *least*": "set the variable to such a number, or unset it",
    (
        "lock_timeout=*timeout*: a number of seconds from 0, or None to wait for as long as it takes"
    ): "give one of the two",
    "*name* names neither a table nor, as TABLE.COLUMN, a column": "write it in one of these forms",
    "steps must be a whole number from 0, got *steps*": "give such a number, or None for all",
    "since, latest, database and git_base exclude each other": "give one of them",
    "latest must be a whole number from 1, got *latest*": "give such a number",
    "keep=*keep*: a number from 1, since what is replaced is kept, too": "give such a number",
    "keep=*keep*: a number from 1, since the new snapshot is one": "give such a number",
    "keep=*keep*: a number from 0": "give such a number",
    "the label *label*: 1 to 50 letters, digits, - and _": "give another label",
    "*path*: cannot be read: *strerror*": "check its permissions, and the disk",
    "*migration*: cannot be read: *strerror*": "check its permissions, and the disk",
    "*file*: cannot be written: *strerror*": "check the folder and its permissions, and the disk",
    "*path*: not TOML: *error*": "correct the file",
    "`*mark* StatementBegin` without `*mark* StatementEnd`": "add the line that is missing",
    "not a regular file": "put a file in its place, or take it out of the folder",
    "*path*:*line*: a NUL character, at which SQLite would stop": "remove it, or save the file as UTF-8",
    "must say `run_in_transaction = true` or `run_in_transaction = false`": "write one of the two",
    "`*name*=*value*` means nothing here; only executeInTransaction and placeholderReplacement do": "remove the line",
    "*path*: the dependencies go round in a circle: *cycle*": "remove one of the `-- depends:` lines",
    (
        "depends on *id*, which is not in this folder; one of another set is written SET/*id*"
    ): "correct the id, or restore the file",
    "*migration*: the dependencies go round in a circle: *text*": "remove one of the `-- depends:` lines",
    "*database* lacks what the migrations depend on; nothing was changed": "do what each line says",
    (
        "applied migrations of *database* depend on what was to be undone; nothing was changed"
    ): "roll back first what each line names",
    "a migration's name needs a letter or a digit (a-z, 0-9), got *name*": "give another name",
    "only comments of `--` may stand before `*up*`": "move the statements below it",
    "no line begins with `-- migrate:down`; dbmate needs one, even if nothing comes after it": "add the line",
    "`-- migrate:*name*` stands where `-- migrate:*expected*` should": "put the sections into order: up, then down",
    "no line says `*mark* Up`; *tool* needs one before the statements": "add the line",
    "`-- +goose ENVSUB ON`: nothing is replaced by environment variables here": "write the values out",
    "`*strip*` is no annotation of *tool*'s": "correct or remove the line",
    "`*line*` stands in the wrong place": "put the annotations into the tool's order",
    "*tool* is no tool whose ledger can be taken over; those are *tools*": "give one of those",
    "alembic_version in *name of* is empty: alembic has applied nothing": "apply with `dao migrate`",
    "*name of* has no table *table*, so *tool* has applied nothing to it: *hint*": "name the right tool or database",
    "the table *table* of *name of* is not as *tool* makes it: its columns are *columns**hint*": "name the right tool",
    "no migration *name* is *kind**others*": "give one of those ids",
    "the migrations and *database* do not agree; nothing was changed": "the details say it, for each migration",
    "*names* loses data without saying that it means to": "the error names what is lost; declare it in the script "
    "(`-- allows:`), or allow it for once (--allow-loss)",
    (
        "these scripts lose data without saying that they mean to"
    ): "the error names what is lost; declare it in the scripts (`-- allows:`), or allow it for once (--allow-loss)",
    "the script ended the run's transaction": "remove the conflict clause or trigger with ROLLBACK",
    "the script leaves the savepoint *savepoints* open": "release it",
    "the script left a transaction open, which was rolled back": "end it with COMMIT, in the script",
    "these migrations leave foreign keys broken": "the details name the rows: mend them in the migration",
    "the database is not intact after these migrations": "the details say where: mend the rows in the migration",
    "these migrations leave what does not work": (
        "the details name it: mend or drop it in the migration, or --allow-broken"
    ),
    (
        "*id*: replaying this migration in an empty database fails (*reason*), so what the migrations make cannot be "
        "told"
    ): "mend the script, or what it needs from before the first migration",
    "*what* *table*: the ledger is kept by the runner (dao mark, dao unmark)": "remove the statement",
    "ATTACH, DETACH and VACUUM INTO: a migration changes one database": "do it outside of migrations",
    "ROLLBACK: it would undo the other migrations of this run too": "remove it; a script that fails is undone anyway",
    "a parameter (?, :name, @name, $name), for which a script has no value": "write the value itself",
    "*path* holds nothing: there is nothing to take a snapshot of": "name another database",
    "*file of* has no snapshots: *how*": "take one with `dao snapshot`, if there is a database",
    "a database in memory has no snapshots: they are files beside its own": "use a file",
    "*path* was written to while it was read: *take*": "take a snapshot of it with `dao snapshot`, and restore that",
    "*path* is not a snapshot: a database that no migrations were applied to": "name another file",
    "*path* is a database in use, not a snapshot: the file *beside* belongs to it. *take*": "take a snapshot of it "
    "with `dao snapshot`, and restore that",
    "litestream *name* failed: *lines*": "Litestream says what is wrong: mend that, and repeat",
    "litestream *name* had no answer for *timeout* s": "look whether the replica can be reached, and repeat",
    "*path*: replication to *replica* has stopped, since *why**because*": (
        "mend what it says, and begin it again: it begins with a whole copy"
    ),
    "what *name* has of *path* is not sound, and is kept as *kept*; nothing was changed": (
        "the details say what is wrong: take an earlier --timestamp, or a snapshot"
    ),
    "*script*: the script *did*": "remove the COMMIT or ROLLBACK from the script",
}


@attrs.frozen
class Refusal:
    """A message as the code has it, with the names of what stands in it in italics, and the class of its error."""

    room: str
    kind: str
    message: str

    @property
    def cause(self) -> str:
        """The message without its cure."""
        return _CURE.sub("", self.message)

    @property
    def cure(self) -> str | None:
        """What to do: the message says it, or the list below."""
        found = _CURE.search(self.message)
        return found[1] if found else CURES.get(self.message)


@functools.cache
def refusals() -> list[Refusal]:
    """Return all that are found, by room and then in the order of the source."""
    found: dict[Refusal, None] = {}
    for place, room in _ROOMS.items():
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for kind, message in _Source(file).messages():
                found[Refusal(room, kind, message)] = None
    return list(found)


class _Source:
    """A module that is read."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.looking: set[str] = set()
        self.details = path.name == "plan.py"  # of a LedgerMismatch, one for each migration
        is_of_files = path.parent.name == "scripts" or path.name == "fixtures.py"
        self.own = "MigrationFileError" if is_of_files else "MigrationFailed"
        if self.details:
            self.own = "LedgerMismatch"

    def messages(self) -> Iterator[tuple[str, str]]:
        if self.details:
            for node in self.tree.body:
                match node:
                    case ast.Assign(value=ast.Constant(value=str(text))) if text.count(" ") > _WORDS:
                        yield self.own, re.sub(r"\{(\w+)\}", r"*\1*", text)
        for scope in ast.walk(self.tree):
            if isinstance(scope, ast.FunctionDef):
                for node in ast.walk(scope):
                    if isinstance(node, ast.Call):
                        yield from self.of_call(node, scope)

    def of_call(self, call: ast.Call, scope: ast.FunctionDef) -> Iterator[tuple[str, str]]:
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        place = 0 if name in _KINDS else _OF_A_REASON.get(name)
        if place is not None and len(call.args) > place:
            for text in self.texts(call.args[place], scope):
                if re.sub(r"\*[^*]*\*", "", text).count(" ") > _WORDS:
                    kind = name if name in _KINDS else self.own
                    if not issubclass(vars(errors).get(kind, Exception), errors.IntegrityError):  # of a row, by the DAO
                        yield kind, text

    def texts(self, node: ast.expr, scope: ast.FunctionDef) -> Iterator[str]:
        """Yield the texts that an expression may have."""
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=parts):
                yield "".join(_shown(part) for part in parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                for first in self.texts(left, scope):
                    for second in self.texts(right, scope):
                        yield first + second
            case ast.IfExp(body=one, orelse=other):
                yield from self.texts(one, scope)
                yield from self.texts(other, scope)
            case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name not in self.looking:
                self.looking.add(name)
                yield from self.of_name(name, scope)
                self.looking.discard(name)

    def of_name(self, name: str, scope: ast.FunctionDef) -> Iterator[str]:
        """Yield the texts that are assigned to a name, or that a function of this name returns."""
        for node in [*ast.walk(scope), *ast.walk(self.tree)]:
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    yield from self.texts(value, scope)
                case ast.FunctionDef(name=function) if function == name:
                    for returned in ast.walk(node):
                        if isinstance(returned, ast.Return) and returned.value is not None:
                            yield from self.texts(returned.value, node)


def _shown(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    match part.value:
        case ast.Call(func=ast.Name("manual"), args=[ast.Constant(value)]):
            return f"docs/{value}"
    names = [
        node.id if isinstance(node, ast.Name) else node.attr
        for node in ast.walk(part.value)
        if isinstance(node, ast.Name | ast.Attribute)
    ]
    known = [
        name for name in names if name not in {"os", "path", "join", "map", "str", "self", "error", "visible", "told"}
    ]
    return f"*{(known or names or ['…'])[0].strip('_').replace('_', ' ').lower()}*"


def page() -> str:
    """Return the page of the reference."""
    found = refusals()
    lines = [
        "# Refusals and errors",
        "",
        (
            "All messages of the commands, with the class of the error that a program gets (`dao.errors`; "
            "in `--json` the `type`), and what"
        ),
        (
            "to do. Words in italics, in code in capitals, stand for what the message names. Made from the code by "
            "`python -m tests.reference.refusals`."
        ),
        "",
        (
            "Exit codes: 1 for all of them, but 2 for wrong usage, "
            "3 for `SchemaOutOfDate` and 4 for `SchemaTooNew` and `LedgerMismatch` of"
        ),
        (
            "`dao health` and `dao wait`. `dao lint --rules` lists what lint finds; "
            "what `rehearse`, `verify` and `check` find has exit code 5."
        ),
    ]
    for room in dict.fromkeys(one.room for one in found):
        lines += ["", f"## {room}", "", "| message | error | what to do |", "|---|---|---|"]
        rows = {one.message: one for one in found if one.room == room}
        lines += [
            f"| {_cell(one.cause)} | {'wrong usage' if one.kind in _USAGE else one.kind} | {_cell(one.cure or '')} |"
            for one in rows.values()
        ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    # in code, asterisks would be shown as such
    text = re.sub("`[^`]*`", lambda code: re.sub(r"\*([a-z ]+|…)\*", lambda name: name[1].upper(), code[0]), text)
    return " ".join(text.split()).replace("|", "\\|").rstrip(".:;")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
