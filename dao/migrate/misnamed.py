"""Files that would be run as migrations, though by their names they undo one, or are for another engine.

Only two spellings pair a rollback with its migration, `NAME.rollback.sql` and `NAME.down.sql`. What means the same in any
other spelling is found by its words, wherever they stand: between dots, as in `1_a.undo.sqlite.sql`; at the end, as in
`1_a_down.sql`, if there is a `1_a` or another migration of that number; or in what is otherwise another's name. Within a
description (`2_add_rollback_flag.sql`), or at the end of one that stands alone (`3_scale_down.sql`), the word is like any.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["misnamed", "nearest", "script_meant"]

# words in one text each (SIM905), since a list would have a line for every word
_DOWN = frozenset(
    "down downs rollback rollbacks undo undos revert reverts reverse downgrade unapply backout backward backwards".split()  # noqa: SIM905
)
# these mean it only where its migration stands beside it
_PERHAPS_DOWN = frozenset("u d dn rb err back inverse teardown".split())  # noqa: SIM905
_UP = frozenset("up ups do apply upgrade forward forwards migrate deploy".split())  # noqa: SIM905
_OTHERS = frozenset(
    "postgres postgresql pg pgsql psql mysql mariadb mssql sqlserver oracle cockroach cockroachdb crdb duckdb clickhouse".split()  # noqa: SIM905
)
# what engines, copies and tools add after the word
_AFTER = _UP | _OTHERS | frozenset("sqlite copy old new bak backup orig final tmp sql v".split())  # noqa: SIM905
# what a folder must hold to be looked at more closely
_HINT = re.compile(
    r"down|undo|roll|rever|back|unapply|inverse|sqlite|dn\b|rb\b|err\b|\b[ud][0-9]|[\W_][ud]\b|" + "|".join(_OTHERS)
)

Words = tuple[str, ...]


def misnamed(stems: Collection[str], rollbacks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the names that are not what they would be taken for, each with why, and what to do.

    `stems` are the ids of what would be run; `rollbacks` has the file names of rollback scripts, by id.
    """
    names = list(dict.fromkeys((*stems, *rollbacks)))
    text = "\n".join(names)
    if text.isascii() and not _HINT.search(text.lower()):
        return
    # two readings: 1_CreateDown has the word at its end, 1_a.DoWn is the word
    readings = [_Names(stems, camel=camel) for camel in (False, True)]
    for stem in names:
        if engine := readings[0].other_engine(stem):
            yield (
                stem,
                f"by its name it is for {engine}, and this runs SQLite; keep each engine's files in a folder of their own",
            )
        elif general := readings[0].made_special(stem):
            yield (
                stem,
                f"by its name it is {general} for SQLite, and both would be run; keep the one that is for SQLite",
            )
        elif stem in readings[0].words:
            undone = [found for reading in readings if (found := reading.undone_by(stem)) is not None]
            if undone:
                alike = [other for other in stems if _number(_words(other)) == _number(_words(stem))]
                yield stem, _advice(undone[0] or nearest(stem, alike), rollbacks)


def nearest(id: str, ids: Iterable[str]) -> str | None:
    """Return which of the other ids is meant most likely; None if none is like it."""
    import difflib  # noqa: PLC0415 - only for a message

    plain = {" ".join(_base(_words(other))): other for other in ids if other != id}
    words = tuple(word for word in _words(id) if word not in _DOWN)
    close = difflib.get_close_matches(" ".join(_base(words)), plain, 1, 0.75)
    return plain[close[0]] if close else None


def script_meant(name: str) -> str | None:
    """Return which of diesel's two scripts, up.sql and down.sql, a name in another spelling means; None if neither."""
    words = _words(name)
    if words[-1:] != ("sql",):
        return None
    return "down.sql" if not _DOWN.isdisjoint(words) else "up.sql" if "up" in words else None


def _advice(match: str | None, rollbacks: Mapping[str, str]) -> str:
    what = "by its name it undoes a migration, and it would be run as one; "
    if match is None:
        return what + "name it NAME.rollback.sql, as its migration NAME.sql, or otherwise if it is a migration itself"
    if match in rollbacks:
        return what + f"{match} has {rollbacks[match]} already: remove one of the two"
    return what + f"rename it to {match}.rollback.sql if it undoes {match}, or otherwise if it is a migration itself"


class _Names:
    """The names of a folder as words, and which of them have the same."""

    def __init__(self, stems: Iterable[str], *, camel: bool) -> None:
        self.words = {stem: _words(stem, camel=camel) for stem in stems}
        self.alike: dict[Words, list[str]] = {}
        self.numbers: dict[Words, list[str]] = {}
        for stem, words in self.words.items():
            for form in {words, _base(words)}:
                self.alike.setdefault(form, []).append(stem)
            self.numbers.setdefault(_number(words), []).append(stem)
        self.has_ups = any(words[-1:] == ("up",) for words in self.words.values())

    def undone_by(self, stem: str) -> str | None:
        """Return what a file undoes by its name; "" if that cannot be told; None if it undoes nothing."""
        words = self.words[stem]
        number = _number(words)
        for place, word in enumerate(words):
            if word not in _DOWN and word not in _PERHAPS_DOWN:
                continue
            before, after = words[:place], words[place + 1 :]
            last = all(one in _AFTER or one.isdecimal() for one in after)
            if word in _PERHAPS_DOWN and not (place == 0 or (last and number)):
                continue
            alike = [before + after, *((*before, up, *after) for up in _UP)]
            alike += [before] if last or number else []
            for form in alike:
                if match := self._other(self.alike.get(form) or self.alike.get(_base(form)), stem):
                    return match
            if word in _PERHAPS_DOWN:
                continue
            if _has_part(stem, _DOWN) or all(one.isdecimal() or one in _DOWN or one in _AFTER for one in words):
                return ""
            if last and number and (match := self._other(self.numbers[number], stem)):
                return match
            if last and self.has_ups:
                return ""
        if re.match(r"[Uu][0-9][0-9._]*__", stem):
            return ""
        glued = next((down for down in _DOWN if number and words[-1].endswith(down)), "")
        return self._other(self.alike.get((*words[:-1], words[-1].removesuffix(glued))), stem) if glued else None

    def other_engine(self, stem: str) -> str | None:
        """Return the engine that a file is for by its name, if it is not SQLite."""
        words = _words(stem)
        if part := _has_part(stem, _OTHERS):
            return part
        if words and words[-1] in _OTHERS and self._other(self.alike.get(_base(words)), stem):
            return words[-1]
        return None

    def made_special(self, stem: str) -> str | None:
        """Return the migration for any engine that a file for SQLite stands in for, by its name."""
        if {"sqlite", "sqlite3"}.isdisjoint(_plain(stem).split(".")):
            return None
        general = tuple(word for word in _words(stem) if word != "sqlite")
        return next((other for other in self.alike.get(general, ()) if self.words[other] == general), None)

    @staticmethod
    def _other(found: Iterable[str] | None, stem: str) -> str | None:
        return next((other for other in found or () if other != stem), None)


def _has_part(stem: str, meant: frozenset[str]) -> str | None:
    """Return which of the words stands alone between dots, in a name that has words beside it."""
    parts = [_words(part) for part in _plain(stem).split(".")]
    for part in parts:
        others = (word for other in parts if other is not part for word in other)
        if len(part) == 1 and part[0] in meant and not all(word.isdecimal() for word in others):
            return part[0]
    return None


def _number(words: Words) -> Words:
    """Return the numbers that a name begins with."""
    end = next((place for place, word in enumerate(words) if not word.isdecimal()), len(words))
    return words[:end]


def _base(words: Words) -> Words:
    """Return the words without those that say which way it goes, or for which engine."""
    while len(words) > max(1, len(_number(words))) and (words[-1] in _AFTER or words[-1].isdecimal()):
        words = words[:-1]
    return words[1:] if len(words) > 1 and words[0] in _UP else words


def _words(name: str, *, camel: bool = False) -> Words:
    """Return the words and numbers of a name, as a person reads them."""
    if camel:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found: list[str] = []
    for word in re.findall(r"[^\W\d_]+|[0-9]+", re.sub(r"sqlite[23]", "sqlite", _plain(name))):
        meant = (word.lstrip("0") or "0") if word.isdecimal() else _meant(word)
        if found and (joined := _meant(found[-1] + word)) in _DOWN:  # roll back
            meant = joined
            del found[-1]
        if word.isdecimal() and found[-1:] == ["v"]:
            del found[-1]
        found.append(meant)
    return tuple(found)


def _plain(name: str) -> str:
    """Return a name in lower case, without accents, invisible characters and wide forms."""
    if name.isascii():
        return name.lower()
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in decomposed if unicodedata.category(letter) not in {"Mn", "Me", "Cf"}).casefold()


def _meant(word: str) -> str:
    """Return the word that is meant, if letters of another script look like some of its own."""
    if word.isascii():
        return word
    for meant in _DOWN | _UP | _OTHERS:
        same = [ours == its for ours, its in zip(meant, word, strict=False)]
        if (
            len(meant) == len(word)
            and any(same)
            and all(s or not its.isascii() for s, its in zip(same, word, strict=True))
        ):
            return meant
    return word
