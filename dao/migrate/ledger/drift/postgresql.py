"""Drift on PostgreSQL: each change notes the objects that it leaves, and what differs from them later is drift.

As a program asks for that whenever it starts, a note has a stamp of the catalog, too.

The migrations are not replayed, for that takes a database of its own. So a note grows with the runs: what a run has
changed is expected as the run left it, and everything else as it was expected before. Thus a change that somebody made
by hand stays one, and objects that no run has touched are none of the note's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dao.engine import execute, fetch
from dao.errors import MigrationError
from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied
from dao.migrate.ledger.sets import Sets
from dao.migrate.ledger.sets import of as sets_of
from dao.migrate.schema.model import TABLES, Item, Key, Object, Schema, earlier
from dao.migrate.schema.model import differences as between
from dao.migrate.schema.postgresql import reader
from dao.migrate.schema.postgresql.stamp import STAMP
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.postgresql import makers, plain
from dao.migrate.values import Difference, Drifted

__all__ = ["compared", "differences", "of_sets", "owners", "record"]

_IS_THERE = "SELECT to_regclass('_dao_schema') IS NOT NULL"
_READ = "SELECT _dao_schema.migrations, _dao_schema.expected FROM _dao_schema"
# without the stamp, there was drift when it was noted
_READ_CHANGED = f"""
SELECT _dao_schema.migrations, CASE WHEN _dao_schema.stamp = {STAMP} THEN NULL ELSE _dao_schema.expected END
FROM   _dao_schema
"""
_WRITE = f"""
INSERT INTO _dao_schema ("only", migrations, stamp, expected)
VALUES (1, $1, CASE WHEN $2::boolean THEN {STAMP} END, $3)
ON CONFLICT ("only") DO UPDATE
SET migrations = excluded.migrations, stamp = excluded.stamp, expected = excluded.expected
"""
_ELSEWHERE = re.compile(r'(?:"(?:[^"]|"")*"|[^".]+)\.')
#: What others than migrations may add to a table at any time: who may read it, a comment, how often it is vacuumed.
_THEIRS = ("comment", "rights", "WITH")

_Objects = Mapping[Key, Object]


@attrs.frozen
class _Note:
    """What is expected, as text, and a hash of the migrations that made it. Without a text it is what is there."""

    migrations: str
    text: str | None

    @property
    def schema(self) -> Schema:
        """What is expected."""
        return Schema(
            {
                (type, name): Object(type, name, table, tuple(reader.item(*item) for item in items), *of)
                for type, name, table, items, *of in json.loads(self.text or "[]")
            }
        )


def differences(connection: Any, _migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """As `dao.migrate.ledger.drift.differences`: reads all of the catalog only if DDL has changed anything since."""
    noted = _noted(connection, _READ_CHANGED)
    # the stock yoyo notes nothing
    if noted is None or noted.migrations != state.fingerprint or noted.text is None:
        return []
    return _differences(noted.schema, reader.read(connection))


def compared(connection: Any, migrations: Sequence[Migration], state: Ledger) -> list[Difference]:
    """As `dao.migrate.ledger.drift.diff`.

    Raises:
        MigrationError: Nobody has noted what the migrations have made.
    """
    noted = _noted(connection)
    if state.unfinished:
        id = sets_of(migrations, state).told(next(iter(state.unfinished)))
        raise MigrationError(
            f"{state.database}: {id} is unfinished, and in the middle of a script nobody knows what the schema should "
            f"be: `dao migrate resolve {id}` ends it"
        )
    if state.entries and (noted is None or noted.migrations != state.fingerprint):
        raise MigrationError(
            f"{state.database}: the stock yoyo applied or undid the latest migrations, and notes nothing of the schema "
            "that they leave; from the next `dao migrate` on it is known again"
        )
    return differences(connection, migrations, state)


def owners(
    connection: Any, found: Sequence[Difference], migrations: Sequence[Migration], state: Ledger, its: Sets
) -> list[str | None]:
    """As `dao.migrate.ledger.drift.sqlite.owners`: as it was noted, else by the words of scripts."""
    try:
        made = makers(applied(migrations, state))
    except MigrationError:
        made = {}
    noted = _noted(connection)
    expected: _Objects = noted.schema.objects if noted else {}
    objects = {**reader.read(connection).objects, **expected}
    sets = {*its.by_id.values()} - {None}

    def owner(one: Difference) -> str | None:
        table = objects[one.type, one.name].table
        keys = [(one.type, one.name), *((type, table) for type in TABLES)]
        seen = (expected[key].set for key in keys if key in expected)
        id = made.get(plain(one.name)) or made.get(plain(table))
        return next((set for set in seen if set in sets), None if id is None else its.by_id[id])

    return [owner(one) for one in found]


def of_sets(connection: Any) -> set[Key]:
    """Return the type and the name of each object of which it is noted that a migration of some set has made it."""
    noted = _noted(connection)
    return {key for key, one in noted.schema.objects.items() if one.set is not None} if noted else set()


def record(connection: Any, _migrations: Sequence[Migration], before: Moment, now: Moment) -> Drifted:
    """As `dao.migrate.ledger.drift.record`.

    Without a schema of before no script has run: what is noted as applied is said to have made what is there. A note
    says nothing of what is beside it.
    """
    state, was = now.ledger, before.ledger
    live: Schema = now.schema or reader.read(connection)
    noted = _noted(connection)
    known: _Objects = noted.schema.objects if noted else {}
    expected = known
    if before.schema is not None:
        there: _Objects = before.schema.objects
        if noted and noted.migrations != was.fingerprint:
            # the stock yoyo has changed some of that since
            expected = {key: there[key] for key in expected if key in there}
        expected = _changed(expected, there, live.objects)
    elif set(state.ids) - set(was.ids) or noted is None:
        expected = {key: one for key, one in live.objects.items() if not _ELSEWHERE.match(one.table)}
    renamed = {old.set: new.set for old in was.entries if (new := state.get(old.id)) and new.set != old.set}

    lives = {} if before.schema is None else earlier(before.schema.ids, live.ids)

    def owner(key: Key, one: Object) -> str | None:
        noted = known.get(lives.get(key, key))
        set = one.set or (noted.set if noted else None)
        return renamed.get(set, set)

    expected = {key: attrs.evolve(one, set=owner(key, one)) for key, one in expected.items()}
    found = tuple(_differences(Schema(dict(expected)), live))
    execute(connection, _WRITE, (state.fingerprint, not found, _text(expected)))
    return Drifted(found)


# ---------------------------------------------------------------- what is expected


def _changed(expected: _Objects, before: _Objects, after: _Objects) -> _Objects:
    """Return what is expected after a run, by what was expected before it, and by what was there before and is now."""
    found = {key: one for key, one in expected.items() if key in after or key not in before}
    for key, now in after.items():
        was, wanted = before.get(key), expected.get(key)
        if was is None or (wanted is None and was != now):
            found[key] = now
        elif wanted is not None and was != now:
            found[key] = attrs.evolve(now, items=_merged(wanted.items, was.items, now.items))
    return found


def _merged(expected: Sequence[Item], before: Sequence[Item], after: Sequence[Item]) -> tuple[Item, ...]:
    """Return the items of an object that a run has changed: what it did not touch is expected as before."""

    def by_key(items: Sequence[Item]) -> dict[Any, Item]:
        return {(item.family, item.key): item for item in items}

    wanted, was, now = by_key(expected), by_key(before), by_key(after)
    found: dict[Any, Item] = {}
    for key, item in now.items():
        if was.get(key) != item:
            found[key] = item
        elif key in wanted:
            found[key] = wanted[key]
    # what somebody had taken away, and the run did not bring back
    found |= {key: item for key, item in wanted.items() if key not in was and key not in now}
    return tuple(found.values())


def _differences(expected: Schema, live: Schema) -> list[Difference]:
    """Return what differs, without what is beside it."""
    found = between(expected, live)
    return [one for one in found if one.kind != "unexpected" or not _is_beside(one, expected, live)]


def _is_beside(one: Difference, expected: Schema, live: Schema) -> bool:
    if one.part is not None:
        return one.part.startswith(_THEIRS)
    table = live.objects[one.type, one.name].table
    return not any((type, table) in expected.objects for type in TABLES)


# ---------------------------------------------------------------- the note


def _noted(connection: Any, read: str = _READ) -> _Note | None:
    if fetch(connection, _IS_THERE) != [(True,)]:
        return None
    return next((_Note(migrations, text) for migrations, text in fetch(connection, read)), None)


def _text(objects: _Objects) -> str:
    """Return objects as JSON: of each its type, name, table and set, and of each item its family, key and text."""
    return json.dumps(
        [
            [one.type, one.name, one.table, [[item.family, item.key, item.shown] for item in one.items], one.set]
            for _, one in sorted(objects.items())
        ],
        ensure_ascii=False,
        separators=(",", ":"),
    )
