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

    Of two readers of one key the later one's note counts. There are as many notes as keys that are being read.
    """

    def __init__(self) -> None:
        self._notes: Final[dict[bytes, Note]] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def put(self, key: bytes) -> Note:
        """Put a note for a key."""
        note = self._notes[key] = Note()
        return note

    def take(self, key: bytes, note: Note) -> bool:
        """Take the note back; tell whether it still stood."""
        if self._notes.get(key) is not note:
            return False
        del self._notes[key]
        return True

    def drop(self, key: bytes) -> None:
        """Drop the note of a key, for the key changes."""
        self._notes.pop(key, None)

    def outdate(self, key: bytes) -> None:
        """Let the note of a key say that another node changed the key."""
        note = self._notes.get(key)
        if note is not None:
            note.is_outdated = True

    def outdate_all(self, prefix: bytes) -> None:
        """Let the notes of every key with this beginning say so."""
        for key, note in self._notes.items():
            if key.startswith(prefix):
                note.is_outdated = True

    def drop_all(self, prefix: bytes = b"") -> None:
        """Drop the notes of every key with this beginning."""
        for key in [key for key in self._notes if key.startswith(prefix)]:
            del self._notes[key]
