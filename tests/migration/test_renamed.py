"""A file that was renamed after its migration was applied is recognised, and nothing advises to apply it twice."""

from __future__ import annotations

import unicodedata

import pytest

import dao
from dao import migrate
from dao.errors import LedgerMismatch, MigrationFileError, SchemaTooNew
from tests.folders import IDS, THREE, ids, query, schema, write

#: An id whose two forms a person cannot tell apart.
NFC, NFD = (unicodedata.normalize(form, "0002_größe_é") for form in ("NFC", "NFD"))
#: How the second of the three may be renamed.
NAMES = {"word": "0002_bee", "number": "0007_b", "case": "0002_B", "order": "0000_b", "accents": NFC}


def rename(folder, old, new):
    """Give a pair another name."""
    for suffix in (".sql", ".rollback.sql"):
        (folder / f"{old}{suffix}").rename(folder / f"{new}{suffix}")


def ledger(path):
    """Return what yoyo's table and ours say, without the ids."""
    return query(
        path,
        "SELECT yoyo.applied_at_utc, ours.duration_ms, ours.checksum FROM _yoyo_migration AS yoyo"
        " JOIN _dao_migration AS ours USING (migration_id, applied_at_utc) ORDER BY 1",
    )


@pytest.mark.parametrize("named_by", ["old", "new"])
@pytest.mark.parametrize("new", NAMES.values(), ids=NAMES)
def test_accept_of_a_renamed_file_moves_its_entry(path, url, three, new, named_by):
    """The message names both and offers `dao accept`, which keeps time and history.

    It offered `dao unmark`, and the migration ran twice.
    """
    migrate.apply(url, three)
    query(path, "INSERT INTO b VALUES (3)")
    before = schema(path), ledger(path)
    rename(three, "0002_b", new)
    with pytest.raises(LedgerMismatch) as caught:
        migrate.apply(url, three, allow_out_of_order=True)
    assert f"0002_b: it is applied, and its file is named {new} now. If that is meant, `dao accept {new}`" in str(
        caught.value
    )
    assert "unmark" not in str(caught.value)
    assert "--allow-out-of-order" not in str(caught.value)
    connection = dao.connect(url)
    with pytest.raises(LedgerMismatch, match=f"dao accept {new}"):
        migrate.assert_current(connection, three)
    connection.close()
    assert [(row.id, row.renamed) for row in migrate.status(url, three).migrations if row.renamed] == [("0002_b", new)]
    assert migrate.accept(url, ["0002_b" if named_by == "old" else new], three) == [new]
    assert (schema(path), ledger(path)) == before
    assert migrate.status(url, three).is_current
    assert migrate.apply(url, three) == []
    assert query(path, "SELECT count(*) FROM b") == [(2,)]
    (deed,) = [deed for deed in migrate.history(url) if deed.operation == "accept"]
    assert (deed.id, deed.detail) == (new, "renamed from 0002_b")
    assert ids(migrate.rollback(url, three, steps=2, allow_data_loss=True)) == ["0003_c", new]


def test_accept_of_a_renamed_file_is_seen_by_the_stock_yoyo(path, url, three):
    """The stock command looks by a hash of the id: that is moved, too."""
    from yoyo import get_backend, read_migrations

    migrate.apply(url, three)
    rename(three, "0002_b", "0002_bee")
    migrate.accept(url, ["0002"], three)
    backend = get_backend(f"sqlite+apsw:///{path}")
    assert not backend.to_apply(read_migrations(str(three)))
    assert [migration.id for migration in backend.to_rollback(read_migrations(str(three)))] == [
        "0003_c",
        "0002_bee",
        "0001_a",
    ]


def test_all_renamed_files_are_named_at_once(url, three):
    """A folder that was renumbered needs one look, and one command."""
    migrate.apply(url, three)
    new = [id.replace("000", "2025") for id in IDS]
    for old, its in zip(IDS, new, strict=True):
        rename(three, old, its)
    with pytest.raises(LedgerMismatch) as caught:
        migrate.apply(url, three)
    assert [f"`dao accept {id}`" in str(caught.value) for id in new] == [True] * 3
    assert migrate.accept(url, new, three) == new
    assert migrate.status(url, three).is_current


#: Renumberings of three files: which number each has then; what `dao accept` is told; what is accepted by that.
RENUMBERED = {
    "one put between": ({"2": "3", "3": "4"}, "3", ["3", "4"]),
    "one put before": ({"1": "2", "2": "3", "3": "4"}, "2", ["2", "3", "4"]),
    "two swapped": ({"2": "3", "3": "2"}, "3", ["3", "2"]),
    "all in a circle": ({"1": "2", "2": "3", "3": "1"}, "1", ["1", "2", "3"]),
}


@pytest.mark.parametrize(("moves", "named", "accepted"), RENUMBERED.values(), ids=RENUMBERED)
def test_renumbered_files_are_recognised(path, url, tmp_path, moves, named, accepted):
    """A file may take the name of another: the advice was to accept an edit, after which the last one was run again."""
    texts = {n: f"INSERT INTO x VALUES ({n});" for n in "23"} | {"1": "CREATE TABLE x (id);"}
    folder = write(tmp_path / "sql", {f"{n}.sql": text for n, text in texts.items()})
    migrate.apply(url, folder)
    for n in moves:
        (folder / f"{n}.sql").unlink()
    write(folder, {f"{new}.sql": texts[old] for old, new in moves.items()})
    write(folder, {f"{n}.sql": "CREATE TABLE new (id);" for n in moves if n not in moves.values()})
    with pytest.raises(LedgerMismatch) as caught:
        migrate.apply(url, folder, allow_out_of_order=True)
    before = ledger(path)
    assert f"`dao accept {named}` notes" in str(caught.value)
    assert migrate.accept(url, [named], folder) == accepted
    assert ledger(path) == before
    migrate.apply(url, folder, allow_out_of_order=True)
    assert migrate.status(url, folder).is_current
    assert query(path, "SELECT id FROM x ORDER BY id") == [(2,), (3,)]


@pytest.mark.parametrize("files", [1, 2])
def test_files_that_cannot_be_told_apart_are_refused(path, url, tmp_path, files):
    """Where two entries, or two files, have one text, nothing is guessed, by no command."""
    entries = {f"{n}_x.sql": "INSERT INTO x VALUES (1);" for n in (2, 3)}
    folder = write(tmp_path / "sql", {"1_x.sql": "CREATE TABLE x (id);", **entries})
    migrate.apply(url, folder)
    (folder / "2_x.sql").unlink()
    (folder / "3_x.sql").rename(folder / "4_x.sql")
    if files == 2:
        write(folder, {"5_x.sql": "INSERT INTO x VALUES (1);"})
    holders = "4_x" if files == 1 else "4_x, 5_x"
    for call in (lambda: migrate.apply(url, folder), lambda: migrate.accept(url, ["2_x"], folder)):
        with pytest.raises(LedgerMismatch, match=f"2_x: .*its text is that of {holders}, so that it cannot be told"):
            call()
    connection = dao.connect(url)
    with pytest.raises(SchemaTooNew):
        migrate.assert_current(connection, folder)
    connection.close()
    migrate.mark(url, ["4_x"], folder)
    migrate.unmark(url, ["2_x"], folder)
    assert query(path, "SELECT count(*) FROM x") == [(2,)]


def test_missing_file_that_no_other_holds_is_no_rename(url, three):
    """The message says that `dao unmark` leaves what was made, and how a file of another name and text is noted."""
    migrate.apply(url, three)
    rename(three, "0002_b", "0002_bee")
    write(three, {"0002_bee.sql": f"{THREE['0002_b.sql']} -- edited"})
    for call in (migrate.apply, lambda url, three: migrate.accept(url, ["0002_b"], three)):
        with pytest.raises(LedgerMismatch, match="`dao unmark 0002_b` alone forgets it: what it made stays"):
            call(url, three)


# ---------------------------------------------------------------- two forms of one name


@pytest.mark.parametrize(("first", "then"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_name_in_another_normal_form_is_the_same(path, url, three, first, then):
    """File names in another Unicode normal form are the same ids.

    A folder that moves from macOS to Linux gets other bytes in its names: to the ledger they were other files.
    """
    rename(three, "0002_b", first)
    write(three, {"0003_c.sql": f"-- depends: {then}\n{THREE['0003_c.sql']}"})
    assert ids(migrate.apply(url, three)) == ["0001_a", NFC, "0003_c"]
    assert query(path, "SELECT migration_id FROM _yoyo_migration WHERE migration_id LIKE '0002%'") == [(NFC,)]
    if then != first:
        rename(three, first, then)
    assert migrate.status(url, three).is_current
    assert migrate.apply(url, three) == []
    assert [step.id for step in migrate.plan(url, three, direction="rollback", to=then)] == ["0003_c"]
    migrate.rollback(url, three, steps=2, allow_data_loss=True)
    assert query(path, "SELECT migration_id FROM _yoyo_migration") == [("0001_a",)]


def test_pair_in_two_normal_forms_is_a_pair(url, three):
    """A script and its rollback belong together whichever way either is written."""
    rename(three, "0002_b", NFC)
    (three / f"{NFC}.rollback.sql").rename(three / f"{NFD}.rollback.sql")
    assert migrate.load(three)[1].reversible


def test_two_files_of_one_name_are_refused(three):
    """Two files that differ in the normal form only are one migration twice: one of the two is too many."""
    write(three, {f"{NFC}.sql": "SELECT 1;", f"{NFD}.sql": "SELECT 2;"})
    with pytest.raises(MigrationFileError, match="the names differ in Unicode's normal form only"):
        migrate.load(three)


def test_ledger_in_the_other_normal_form_is_read_and_written(path, url, three):
    """Ids that were noted decomposed are the same ids, and composed by the next change.

    An earlier version, or yoyo on macOS, noted them so.
    """
    rename(three, "0002_b", NFC)
    migrate.apply(url, three)
    for table in ("_yoyo_migration", "_dao_migration"):
        query(path, f"UPDATE {table} SET migration_id = ? WHERE migration_id = ?", NFD, NFC)
    query(path, "UPDATE _yoyo_migration SET migration_hash = 'of the other form' WHERE migration_id = ?", NFD)
    assert migrate.status(url, three).is_current
    assert migrate.apply(url, three) == []
    assert ids(migrate.rollback(url, three, steps=2, allow_data_loss=True)) == ["0003_c", NFC]
    assert migrate.status(url, three).ids("applied") == ["0001_a"]
    assert ids(migrate.apply(url, three)) == [NFC, "0003_c"]


def test_ledger_in_both_normal_forms_has_one_entry_once_it_is_written(path, url, three):
    """An id that yoyo noted decomposed beside ours is one entry.

    It was undone twice, and what is left of a migration was not noticed.
    """
    rename(three, "0002_b", NFC)
    migrate.apply(url, three)
    values = "SELECT 'of the other form', ?, applied_at_utc FROM _yoyo_migration WHERE migration_id = ?"
    query(path, f"INSERT INTO _yoyo_migration {values}", NFD, NFC)
    assert migrate.unmark(url, ["0003_c"], three) == ["0003_c"]
    assert migrate.status(url, three).drift == ("table c is unexpected",)
    assert ids(migrate.mark(url, ["0003_c"], three) and migrate.rollback(url, three, steps=2)) == ["0003_c", NFC]
    assert migrate.status(url, three).ids("applied") == ["0001_a"]
