"""Files that would be run as migrations, though by their names they undo one, or are for another engine.

Only two spellings pair a rollback with its migration, `NAME.rollback.sql` and `NAME.down.sql`. A name that means the
same in any other spelling is found by its words, wherever they stand: between dots, as in `1_a.undo.sqlite.sql`; at
the end, as in `1_a_down.sql`, if there is a `1_a` or another migration of that number; or in what is otherwise
another's name. A file with another's name and more after a dot (`1_a.dwon.sql`) is no migration of its own, either.
Within a description (`2_add_rollback_flag.sql`), or at the end of one that stands alone (`3_scale_down.sql`), the
word is like any.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["is_meant", "misnamed", "nearest", "script_meant"]

# words in one text each, since a list would have a line for every word
_DOWN = frozenset(
    "down downs rollback rollbacks undo undos revert reverts reverse downgrade unapply backout "
    "backward backwards".split()
)
# these mean it only at the end of its migration's name, or in place of what makes the same
_PERHAPS_DOWN = frozenset("u d dn rb err back inverse teardown uninstall drop remove delete".split())
_MADE = ("create", "add", "make", "install")
_UP = frozenset("u up ups do apply upgrade forward forwards migrate deploy".split())
_OTHERS = frozenset(
    "postgres postgresql pg pgsql psql mysql mariadb mssql sqlserver oracle cockroach cockroachdb crdb duckdb "
    "clickhouse".split()
)
# engines and tools add these, copies those; at the end of a name alone these tell that it is a copy: 1_drop_old_a
_COPIES = frozenset("copy old new bak backup orig final tmp".split())
_MORE = _UP | _OTHERS | _COPIES | frozenset("sqlite sql v".split())
# without any of these a folder need not be looked at
_TOLD = _DOWN | _PERHAPS_DOWN | _OTHERS | {"roll"}

_APART = "keep each engine's files in a folder of their own, and leave the engine out of their names"

Words = tuple[str, ...]


def misnamed(stems: Collection[str], rollbacks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the names that are not what they would be taken for, each with why, and what to do.

    `stems` are the ids of what would be run; `rollbacks` has the file names of rollback scripts, by id.
    """
    names = list(dict.fromkeys((*stems, *rollbacks)))
    text = "\n".join(names)
    told = {word for word in set(re.findall("[a-z]+", text.lower())) if word in _TOLD or word.endswith(tuple(_DOWN))}
    if not told and text.isascii() and not re.search(r"\.(?!\d)|^[Uu]\d", text, re.MULTILINE):
        return
    folder = _Folder(stems)
    undone = {stem: match for stem in stems if (match := folder.undone_by(stem)) is not None}
    if folder.has_ups or any(undone.values()):  # what ends so, but has no migration, is of the same style
        undone = dict.fromkeys(folder.ends_so, "") | undone
    for name in names:
        if engine := folder.other_engine(name):
            reason = f"by its name it is for {engine} alone; {_APART}"
        elif general := folder.made_special(name):
            reason = f"by its name it is {general} for SQLite, and both would be run; {_APART}"
        elif name in undone:
            match = undone[name] or nearest(name, folder.numbers[_number(folder.words[name])])
            reason = f"by its name it undoes a migration, and it would be run as one; {_advice(match, rollbacks)}"
        elif whole := folder.part_of(name):
            reason = f"by its name it belongs to {whole}, and it would be run by itself; {_advice(whole, rollbacks)}"
        else:
            continue
        yield name, reason


def nearest(id: str, ids: Iterable[str]) -> str | None:
    """Return which of the other ids is meant most likely; None if none is like it."""
    import difflib  # noqa: PLC0415 - only for a message

    plain = {" ".join(_key(_words(other))): other for other in ids if other != id}
    words = tuple(word for word in _words(id) if word not in _DOWN)
    close = difflib.get_close_matches(" ".join(_key(words)), plain, 1, 0.75)
    return plain[close[0]] if close else None


def is_meant(name: str) -> bool:
    """Return whether a file that is no script by its suffix is meant as one: `1_a.down`, `1_a.sql.sqlite`."""
    stem, _, suffix = name.lower().rpartition(".")
    return bool(stem) and (suffix == "up" or suffix in _DOWN or (stem.endswith(".sql") and suffix.startswith("sqlite")))


def script_meant(name: str) -> str | None:
    """Return which of diesel's two scripts, up.sql and down.sql, a name in another spelling means; None if neither."""
    words = _words(name)
    if words[-1:] != ("sql",):
        return None
    return "down.sql" if not _DOWN.isdisjoint(words) else "up.sql" if "up" in words else None


def _advice(match: str | None, rollbacks: Mapping[str, str]) -> str:
    if match is None:
        return "name it NAME.rollback.sql, as its migration NAME.sql, or otherwise if it is a migration itself"
    if match in rollbacks:
        return f"{match} has {rollbacks[match]} already: remove one of the two"
    return f"rename it to {match}.rollback.sql if it undoes {match}, or otherwise if it is a migration itself"


class _Folder:
    """The names of a folder as words, and which of them have the same."""

    def __init__(self, stems: Iterable[str]) -> None:
        self.words = {stem: _words(stem) for stem in stems}
        self.ends_so: list[str] = []
        self.numbers: dict[Words, list[str]] = {}
        self._alike: dict[Words, list[str]] = {}
        for stem, words in self.words.items():
            self.numbers.setdefault(_number(words), []).append(stem)
            for form in {words, _key(words)}:
                self._alike.setdefault(form, []).append(stem)
        ups = sum(words[-1:] == ("up",) for words in self.words.values())
        self.has_ups = 2 * ups >= len(self.words)

    def undone_by(self, stem: str) -> str | None:
        """Return what a file undoes by its name; "" if that cannot be told; None if it undoes nothing."""
        words = self.words[stem]
        number = _number(words)
        alike = self.numbers[number] if number else []
        if re.match(r"[Uu][0-9][0-9._]*__", stem):
            return self._other(words[1:], stem) or ""
        for place, word in enumerate(words):
            if word not in _DOWN and not (len(alike) > 1 and word in _PERHAPS_DOWN):
                continue
            before, after = words[:place], words[place + 1 :]
            last = all(one in _MORE or one.isdecimal() for one in after)
            forms = [(*before, made, *after) for made in _MADE] if number else []
            if word in _DOWN or (last and place > len(number)):  # 1d comes after 1c
                forms += [before + after, *([before] if last or number else [])]
            if match := next(filter(None, (self._other(form, stem) for form in forms)), None):
                return match
            if word in _DOWN:
                if _part(stem, _DOWN) or all(one.isdecimal() or one in _DOWN or one in _MORE for one in words):
                    return ""
                if last and len(alike) > 1:
                    return next(other for other in alike if other != stem)
                if last:
                    self.ends_so.append(stem)
        glued = next((down for down in _DOWN if number and words[-1].endswith(down)), None)
        return self._other((*words[:-1], words[-1].removesuffix(glued)), stem) if glued else None

    def part_of(self, stem: str) -> str | None:
        """Return the migration whose name a file has, and more after a dot; a number there is another version."""
        for dot in re.finditer(r"\.(?!v?\d)", stem) if stem in self.words else ():
            more = _words(stem[dot.end() :])
            if not _UP.issuperset(more) and (match := self._same(_words(stem[: dot.start()]), stem)):
                return match
        return None

    def other_engine(self, stem: str) -> str | None:
        """Return the engine that a file is for by its name, if it is not SQLite."""
        words = _words(stem)
        if _OTHERS.isdisjoint(words):
            return None
        return _part(stem, _OTHERS) or (words[-1] if words[-1] in _OTHERS and self._other(words[:-1], stem) else None)

    def made_special(self, stem: str) -> str | None:
        """Return the migration for any engine that a file for SQLite stands in for, by its name."""
        general = re.sub(r"(?i)\.sqlite[23]?(?=\.|$)", "", stem)
        return self._same(_words(general), stem) if general != stem else None

    def _same(self, words: Words, stem: str) -> str | None:
        """Return another migration of these words, but for those that say it is one."""
        bare = [word for word in words if word not in _UP]
        same = (
            other
            for other in self._alike.get(_key(words), ())
            if bare == [word for word in self.words[other] if word not in _UP]
        )
        return next((other for other in same if other != stem), None)

    def _other(self, words: Words, stem: str) -> str | None:
        """Return another migration of these words, or else of as good as these."""
        found = (*self._alike.get(words, ()), *self._alike.get(_key(words), ()))
        return next((other for other in found if other != stem), None)


def _part(stem: str, meant: Collection[str]) -> str | None:
    """Return which of the words stands alone between dots, in a name that has words beside it."""
    parts = [_words(part) for part in stem.split(".")]
    letters = sum(not word.isdecimal() for part in parts for word in part)
    return next((part[0] for part in parts if len(part) == 1 and part[0] in meant and letters > 1), None)


def _number(words: Words) -> Words:
    """Return the numbers that a name begins with."""
    end = next((place for place, word in enumerate(words) if not word.isdecimal()), len(words))
    return words[:end]


def _key(words: Words) -> Words:
    """Return the words without those that say which way it goes, for which engine, or which copy it is."""
    number = _number(words)
    rest = [word for word in words[len(number) :] if word not in _MORE or word in _COPIES]
    while rest and (rest[-1].isdecimal() or rest[-1] in _COPIES):
        del rest[-1]
    return (*number, *rest)


def _words(name: str) -> Words:
    """Return the words and numbers of a name, as a person reads them."""
    plain = name if name.isascii() else unicodedata.normalize("NFKC", name)
    found: list[str] = []
    for word in re.findall(r"[^\W\d_]+|\d+", plain.casefold()):
        if word.isdecimal():
            if found[-1:] == ["v"]:
                del found[-1]
            found.append(word.lstrip("0") or "0")
        elif found and found[-1] + word in _DOWN:  # roll back
            found[-1] += word
        else:
            found.append(word)
    return tuple(found)
