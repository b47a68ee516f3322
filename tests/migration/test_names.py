"""One name for a database, and none that can be put in its place: links, mounts, and folders of somebody else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

import dao
from dao import migrate
from dao.errors import DatabaseBusy, Error, MigrationError, OperationalError, ReadOnlyDatabase
from dao.migrate.copies.restore import restore
from dao.migrate.copies.snapshot import checked, snapshots, take_snapshot, verify
from dao.migrate.rehearsal import rehearse
from tests.folders import THREE, dump, query, with_fourth, write
from tests.migration.test_snapshot import beside
from tests.unit.test_connect import no_superuser

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and give files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The real path of a database that does not exist yet, in a folder of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "new.db"


@pytest.fixture
def filled(path: Path, url: str, three: Path) -> Path:
    """A migrated database with rows."""
    migrate.apply(url, three)
    query(path, "INSERT INTO a SELECT value FROM json_each('[1, 2, 3]')")
    return path


def a_file(path: Path, link: Path) -> Path:
    """Lead to the file by its absolute path."""
    link.symlink_to(path)
    return link


def relative(path: Path, link: Path) -> Path:
    """Lead to the file from where the link is."""
    link.symlink_to(os.path.relpath(path, link.parent))
    return link


def a_folder(path: Path, link: Path) -> Path:
    """Lead to the folder."""
    link.symlink_to(path.parent)
    return link / path.name


def two(path: Path, link: Path) -> Path:
    """Lead to another link that leads to the file."""
    return a_file(a_file(path, link.with_name("first")), link)


def up_from_a_link(path: Path, link: Path) -> Path:
    """Go up from where a link leads: not to the folder in which the link is."""
    (path.parent / "sub").mkdir()
    link.symlink_to(path.parent / "sub")
    return link / ".." / path.name


LINKS = [a_file, relative, a_folder, two, up_from_a_link]


@pytest.mark.parametrize("leads", LINKS)
def test_database_behind_a_link_is_one_database(filled, url, tmp_path, leads):
    """Snapshots are beside the file and found there, whatever name it is called by.

    Restore took an older one instead.
    """
    link = f"sqlite:///{leads(filled, tmp_path / 'link')}"
    first, second = take_snapshot(url), take_snapshot(link)
    assert {one.path.parent for one in (first, second)} == {filled.parent}
    assert snapshots(url) == snapshots(link) == [second, first]
    query(filled, "DELETE FROM a")
    done = restore(link)
    assert (done.database, done.source) == (str(filled), second.path)
    assert query(filled, "SELECT count(*) FROM a") == [(3,)]
    connection = dao.connect(link)
    assert connection.filename == str(filled)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy, match=rf"{filled} is locked, held by process {os.getpid()}"):
        restore(f"{link}?busy_timeout=10")
    connection.close()
    assert sorted(tmp_path.iterdir()) == sorted({filled.parent, tmp_path / "three", *tmp_path.glob("[fl]i*")})


@pytest.mark.parametrize("leads", LINKS)
def test_restore_missing_database_behind_a_link_keeps_the_link(filled, url, three, tmp_path, leads):
    """The file that the link leads to is made; the link stays one."""
    take_snapshot(url)
    name = leads(filled, tmp_path / "link")
    filled.unlink()
    restore(f"sqlite:///{name}")
    assert (tmp_path / "link").is_symlink()
    assert query(filled, "SELECT count(*) FROM a") == [(3,)]
    assert migrate.status(f"sqlite:///{name}", three).is_current


def test_migrate_dangling_link_makes_what_it_leads_to(path, three, tmp_path):
    """As SQLite does; a link that leads in a circle is called that, not a matter of permissions."""
    migrate.apply(f"sqlite:///{a_file(path, tmp_path / 'link')}", three)
    assert path.is_file()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OperationalError, match="a loop of symbolic links"):
        migrate.apply(f"sqlite:///{tmp_path}/circle", three)


def test_link_that_leads_elsewhere_since_is_the_other_database(filled, tmp_path):
    """Two commands by a link that was changed between them are about two databases.

    A connection stays where it is.
    """
    link = a_file(filled, tmp_path / "link")
    url = f"sqlite:///{link}"
    pool = dao.Pool(url)
    taken = take_snapshot(url)
    other = filled.with_name("other.db")
    query(other, "CREATE TABLE other (id)")
    link.unlink()
    link.symlink_to(other)
    assert snapshots(url) == []
    with pytest.raises(MigrationError, match=f"{other} has no snapshots"):
        restore(url)
    with pool.acquire() as connection:
        assert connection.filename == str(filled)
    pool.close()
    restore(url, taken.path)
    assert query(other, "SELECT count(*) FROM a") == [(3,)]


def test_snapshot_connection_whose_file_was_replaced_is_refused(filled, url, three):
    """The file of that name is another one by now: a copy of it would not be what the connection is about to change."""
    connection = dao.connect(url)
    filled.rename(filled.with_name("moved.db"))
    query(filled, "CREATE TABLE theirs (id)")
    with pytest.raises(OperationalError, match="was deleted, moved or replaced"):
        take_snapshot(connection)
    with pytest.raises(OperationalError, match="was deleted, moved or replaced"):
        migrate.rollback(connection, three)
    connection.close()


@pytest.mark.parametrize("name", ["new.db", "second.db"])
def test_hard_linked_database_is_not_written_to(filled, url, three, name):
    """Two names have two WALs: what one wrote is lost for the other. It may be read; SQLite only logs a warning."""
    snapshot = take_snapshot(url)
    os.link(filled, filled.with_name("second.db"))
    url = f"sqlite:///{filled.with_name(name)}"
    before = dump(filled)
    for change in (
        lambda: dao.connect(url),
        lambda: migrate.apply(url, three),
        lambda: take_snapshot(url),
        lambda: restore(url, snapshot.path),
    ):
        with pytest.raises(OperationalError, match=rf"{name} has 2 names \(hard links\).*-samefile"):
            change()
    assert migrate.status(url, three).is_current
    connection = dao.connect(f"{url}?mode=ro")
    assert connection.execute("SELECT count(*) FROM a").get == 3
    connection.close()
    assert dump(filled) == before
    with pytest.raises(OperationalError) as caught:
        dao.connect(url)
    cure = re.search("`(cp .*)` makes", str(caught.value))
    assert cure is not None
    subprocess.run(cure[1], shell=True, check=True)  # noqa: S602 - as somebody who reads it does
    dao.connect(url).close()
    assert dump(filled) == dump(filled.with_name("second.db")) == before


_MOUNTED = """
import subprocess, sys
import dao
from dao import migrate
from dao.errors import OperationalError
real, name, folder = sys.argv[1:]
open(name, "x").close()
subprocess.run(["mount", "--bind", real, name], check=True)
url = "sqlite:///" + name
for change in (lambda: migrate.apply(url, folder), lambda: migrate.take_snapshot(url), lambda: dao.connect(url)):
    try:
        change()
        print("not refused")
    except OperationalError as error:
        assert "mount its folder instead" in str(error), error
assert dao.connect(url + "?mode=ro").execute("SELECT count(*) FROM a").get == 3
assert migrate.status(url, folder).is_current
"""


@ROOT
@pytest.mark.skipif(not shutil.which("unshare"), reason="mounts of its own need Linux")
def test_database_mounted_as_a_file_is_refused(filled, three, tmp_path):
    """`docker run -v ./app.db:/app/app.db` leaves the WAL outside of the mount: commits went with the container.

    Migrations refused it, but programs wrote to it. It may be read.
    """
    name = tmp_path / "app with blanks.db"
    call = ["unshare", "-m", sys.executable, "-c", _MOUNTED, str(filled), str(name), str(three)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("", "")


# ---------------------------------------------------------------- a folder of somebody else


def damage(path: Path) -> None:
    """Leave a file that is no database."""
    path.write_bytes(b"this is no database\n" * 500)


VERBS: dict[str, tuple[Callable[[Path], object], Callable[[str, Path], object]]] = {
    "snapshot": (lambda _: None, lambda url, _: take_snapshot(url)),
    "migrate": (lambda _: None, migrate.apply),
    "rehearse": (lambda _: None, lambda url, folder: rehearse(url, folder, memory_limit=0)),
    "restore": (lambda _: None, lambda url, _: restore(url)),
    "restore missing": (Path.unlink, lambda url, _: restore(url)),
    "restore damaged": (damage, lambda url, _: restore(url)),
}


@pytest.mark.parametrize("swap", ["file", "folder"])
@pytest.mark.parametrize(("prepare", "verb"), VERBS.values(), ids=VERBS)
def test_link_in_place_of_a_file_in_the_making_is_not_followed(
    filled, url, three, tmp_path, monkeypatch, prepare, verb, swap
):
    """A link swapped in while a file is made leads root's write nowhere.

    `dao restore` in somebody else's folder wrote that user's content into a file that only root may write.
    """
    folder = with_fourth(three, "CREATE TABLE x (id);")
    take_snapshot(url)
    prepare(filled)
    victims = tmp_path / "etc"
    victims.mkdir()
    victim = victims / "shadow"
    victim.write_bytes(b"secret" * 10_000)
    make = os.open

    def swapped(name, flags, *arguments, **options):
        file = make(name, flags, *arguments, **options)
        if flags & os.O_EXCL and str(name).endswith(".partial"):
            if swap == "file":
                partial = filled.parent / os.path.basename(name)
                partial.rename(tmp_path / "made")
                partial.symlink_to(victim)
            elif not filled.parent.is_symlink():
                filled.parent.rename(tmp_path / "moved")
                filled.parent.symlink_to(victims)
        return file

    monkeypatch.setattr(os, "open", swapped)
    try:
        verb(url, folder)
    except Error:
        pass
    else:
        # a rehearsal writes to the descriptor, and so never notices
        assert "rehearse" in str(verb.__code__.co_names)
    monkeypatch.undo()
    assert victim.read_bytes() == b"secret" * 10_000
    assert list(victims.iterdir()) == [victim]
    for file in (tmp_path / "moved" if swap == "folder" else filled.parent).iterdir():
        assert b"secretsecret" not in file.read_bytes()


def test_link_in_place_of_a_damaged_database_is_not_read(filled, url, tmp_path, monkeypatch):
    """A link in place of a damaged database exposes no file that it leads to.

    The bytes of the database are kept in a file of the folder's owner.
    """
    take_snapshot(url)
    damage(filled)
    secret = tmp_path / "shadow"
    secret.write_bytes(b"secret" * 10_000)
    make, made = os.open, []

    def swapped(name, flags, *arguments, **options):
        if flags & os.O_EXCL and str(name).endswith(".partial"):
            made.append(name)
            if len(made) == 2:  # the first is for the copy
                filled.unlink()
                filled.symlink_to(secret)
        return make(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(OperationalError, match="its bytes could not be kept"):
        restore(url)
    monkeypatch.undo()
    assert len(made) == 2
    filled.unlink()
    for file in filled.parent.iterdir():
        assert b"secretsecret" not in file.read_bytes()


@ROOT
def test_restore_missing_database_takes_owner_and_permissions_of_the_snapshot(filled, url):
    """The service that had the database could not open what root restored: it was 0600 and root's."""
    filled.chmod(0o640)
    os.chown(filled, 1234, 5678)
    take_snapshot(url)
    filled.unlink()
    restore(url)
    made = filled.stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (1234, 5678, 0o640)


@pytest.fixture
def of_root() -> Iterator[Path]:
    """A migrated database with rows and a snapshot, root's, in a folder in which every user may write."""
    folder = Path(tempfile.mkdtemp(prefix="dao-"))
    folder.chmod(0o777)
    path = folder / "new.db"
    umask = os.umask(0o022)  # others may read it, also where root's shell would not let them
    migrate.apply(f"sqlite:///{path}", write(folder / "sql", THREE))
    take_snapshot(f"sqlite:///{path}")
    os.umask(umask)
    yield path
    shutil.rmtree(folder)


@ROOT
def test_file_of_another_user_is_named_as_what_is_in_the_way(of_root):
    """`dao rollback` advised to leave out a `mode=ro` that nobody had given, and not what does help."""
    url = f"sqlite:///{of_root}"
    with no_superuser():
        for change in (
            lambda: migrate.rollback(url, of_root.parent / "sql"),
            lambda: restore(url),
        ):
            with pytest.raises(ReadOnlyDatabase) as caught:
                change()
            assert re.fullmatch(
                rf"{of_root} may not be written to by this user \(65534\): "
                r"it belongs to user 0 and group 0, mode 0644. "
                "Run this as its owner, or have it made writable",
                str(caught.value),
            )
        verify(take_snapshot(url).path)


@ROOT
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_file_in_the_making_of_another_user_is_left_alone(of_root, mode):
    """What root's killed run left made everybody else's fail, with the advice to check the folder's permissions."""
    left = of_root.with_name("new.db.20260101T000000.000Z.partial")
    left.write_bytes(b"left")
    left.chmod(mode)
    of_root.parent.chmod(0o1777)
    url = f"sqlite:///{of_root}"
    with no_superuser():
        taken = take_snapshot(url)
        verify(taken.path)
    assert left.exists()
    assert snapshots(url)[0] == taken
    take_snapshot(url)
    assert not left.exists()


# ---------------------------------------------------------------- a file in use


def hot(path: Path, folder: Path) -> Path:
    """Return a copy of a database, as it is in the middle of a transaction that has written to it already."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    connection.pragma("cache_size", 1)
    connection.execute("BEGIN; CREATE TABLE big (x); INSERT INTO big SELECT zeroblob(9000) FROM a, a AS b")
    connection.execute("DELETE FROM a")
    connection.cache_flush()
    folder.mkdir()
    for file in path.parent.glob("new.db*"):
        shutil.copy(file, folder)
    connection.execute("ROLLBACK")
    connection.close()
    assert (folder / "new.db-journal").stat().st_size
    return folder / "new.db"


def test_restore_file_with_a_hot_journal_is_refused(filled, url, tmp_path):
    """A file with a hot journal is a database in use, not a snapshot.

    Only a WAL was looked for: rows that were never committed were restored. `dao snapshot` takes the committed ones.
    """
    copy = hot(filled, tmp_path / "copy")
    with checked_refuses("a database in use, not a snapshot: the file .*new.db-journal belongs to it.*`dao snapshot"):
        verify(copy)
    before = dump(filled)
    with checked_refuses("a database in use"):
        restore(url, copy)
    assert dump(filled) == before
    taken = take_snapshot(f"sqlite:///{copy}")
    assert query(taken.path, "SELECT count(*) FROM a") == [(3,)]
    verify(copy)


def checked_refuses(message: str):
    """Expect a refusal of a file."""
    return pytest.raises(MigrationError, match=message)


class Copying(apsw.VFS):
    """Copies a folder when a super-journal is about to go, with which a transaction over two databases commits."""

    def __init__(self, folder: Path, to: Path) -> None:
        self._copy = (folder, to)
        super().__init__("copying", "unix")

    def xDelete(self, name, sync):  # noqa: N802 - SQLite's name
        """Remove a file."""
        if "-mj" in name:
            shutil.copytree(*self._copy)
        super().xDelete(name, sync)


def test_restore_file_with_a_super_journal_is_refused(filled, url, tmp_path):
    """Whether a journal of a transaction over two databases is to be rolled back is written in a third file."""
    other = filled.with_name("other.db")
    query(other, "CREATE TABLE x (id)")
    query(filled, "PRAGMA journal_mode = delete")
    vfs = Copying(filled.parent, tmp_path / "copy")
    connection = apsw.Connection(str(filled), vfs="copying")
    connection.execute("ATTACH ? AS other", (str(other),))
    connection.execute("BEGIN; DELETE FROM a; INSERT INTO x VALUES (1); COMMIT")
    connection.close()
    vfs.unregister()
    assert list((tmp_path / "copy").glob("*-mj*"))
    with checked_refuses("a database in use"):
        restore(url, tmp_path / "copy" / "new.db")


@pytest.mark.parametrize("mode", ["persist", "truncate", "wal"])
def test_verify_file_whose_journal_is_done_with_is_accepted(filled, mode):
    """A journal that was committed and left there is no reason to refuse a file; nor is the header's WAL mode."""
    query(filled, f"PRAGMA journal_mode = {mode}; INSERT INTO a VALUES (9)")
    verify(filled)
    assert beside(filled) == []


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_restore_file_that_is_written_to_meanwhile_is_refused(filled, mode):
    """A snapshot is read without locks: what somebody changes under the reader is no state of a database."""
    query(filled, f"PRAGMA journal_mode = {mode}")
    connection = apsw.Connection(str(filled))
    with checked_refuses("was written to while it was read|a database in use"), checked(filled):
        connection.execute("INSERT INTO a VALUES (9)")
    connection.close()
