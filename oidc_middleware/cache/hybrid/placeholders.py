"""Notes of who is reading what, so that an answer that was overtaken by a change is not kept."""

from __future__ import annotations

from typing import Final


class Note:
    """One who reads a key; `is_outdated` when somebody else changed the key after that began."""

    __slots__ = ("is_outdated",)

    def __init__(self) -> None:
        self.is_outdated: bool = False


class Placeholders:
    """Who asks a further tier for a key puts a note here first; who changes the key meanwhile drops the note.

    Only an answer whose note still stands is as new as what is known here. Where another node changed the key, the note
    stands, but says that the answer may be older than that: good for who asked before, and not to be kept.

    Of two readers of one key the later one's note counts. The notes of those who update a key stand side by side: their
    versions tell which one is newer. There are as many notes as keys that are being read, and updates under way.
    """

    def __init__(self) -> None:
        self._notes: Final[dict[bytes, Note]] = {}
        self._updates: Final[dict[bytes, set[Note]]] = {}

    def __len__(self) -> int:
        return len(self._notes) + sum(map(len, self._updates.values()))

    def put(self, key: bytes) -> Note:
        """Put the note of a reader for a key."""
        note = self._notes[key] = Note()
        return note

    def put_update(self, key: bytes) -> Note:
        """Put the note of one who updates a key."""
        note = Note()
        self._updates.setdefault(key, set()).add(note)
        return note

    def take(self, key: bytes, note: Note) -> bool:
        """Take the note of a reader back; tell whether it still stood."""
        if self._notes.get(key) is not note:
            return False
        del self._notes[key]
        return True

    def take_update(self, key: bytes, note: Note) -> bool:
        """Take the note of an update back, and drop that of a reader; tell whether it still stood."""
        self._notes.pop(key, None)  # the reader's answer may be older
        notes = self._updates.get(key, set())
        if note not in notes:
            return False
        notes.remove(note)
        if not notes:
            del self._updates[key]
        return True

    def drop(self, key: bytes) -> None:
        """Drop the notes of a key, for the key changes."""
        self._notes.pop(key, None)
        self._updates.pop(key, None)

    def outdate(self, key: bytes) -> None:
        """Let the notes of a key say that another node changed the key."""
        notes = self._updates.get(key, set())
        for note in (*notes, self._notes[key]) if key in self._notes else notes:
            note.is_outdated = True

    def outdate_all(self, prefix: bytes) -> None:
        """Let the notes of every key with this beginning say so."""
        for key in [key for key in (*self._notes, *self._updates) if key.startswith(prefix)]:
            self.outdate(key)

    def drop_all(self, prefix: bytes = b"") -> None:
        """Drop the notes of every key with this beginning."""
        for notes in (self._notes, self._updates):
            for key in [key for key in notes if key.startswith(prefix)]:
                del notes[key]
