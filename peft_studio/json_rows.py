"""A JSON document's list of rows, one row at a time: the document may be larger than the memory there is."""

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 1 << 16
MAX_VALUE = 64 << 20
_NEAR_THE_END = 16  # characters: a value that was cut off fails this close to the cut, or is an open string
_SPACE = " \t\n\r"


class BadJson(ValueError):
    """The document is no JSON, or not of the layout that is understood; the message is a sentence's end."""


class TooLong(ValueError):
    """One value of the document is longer than any row may be."""


def json_rows(file: BinaryIO) -> Iterator[object]:
    """Yield what is in a list, or in the list that an object has under ``data``; read to the document's end."""
    document = _Document(file)
    if document.peek() == "[":
        yield from document.items()
        found = True
    elif document.peek() == "{":
        found = yield from _data_of(document)
    else:
        document.value()
        found = False
    document.require_end()
    if not found:
        raise BadJson("a JSON data set is a list of objects, or an object whose 'data' is such a list")


def _data_of(document: "_Document") -> Iterator[object]:
    found = False
    for name in document.names():
        if name == "data" and document.peek() == "[":
            yield from document.items()
            found = True
        else:
            document.value()
    return found


class _Document:
    """A JSON text, of which a window is in memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._read = file.tell()  # bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._parser = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False
        self._line, self._column = 0, 0  # of the window's first character, counted from 0

    def peek(self) -> str:
        """Return the next character that is no white space; nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def items(self) -> Iterator[object]:
        """Yield the values of the list that begins here."""
        self._take("[", "Expecting value")
        if self.peek() == "]":
            self._at += 1
            return
        while True:
            yield self.value()
            if self.peek() == "]":
                break
            self._take(",", "Expecting ',' delimiter")
        self._at += 1

    def names(self) -> Iterator[object]:
        """Yield the names in the object that begins here; whoever asks reads each one's value before the next."""
        self._take("{", "Expecting value")
        if self.peek() == "}":
            self._at += 1
            return
        while True:
            if self.peek() != '"':
                raise self._bad("Expecting property name enclosed in double quotes")
            name = self.value()
            self._take(":", "Expecting ':' delimiter")
            yield name
            if self.peek() == "}":
                break
            self._take(",", "Expecting ',' delimiter")
        self._at += 1

    def value(self) -> object:
        """Read the value that begins here."""
        self.peek()
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                bad = self._bad(error.msg, error.pos)
                cut_off = error.pos >= len(self._text) - _NEAR_THE_END or error.msg.startswith("Unterminated")
                if cut_off and self._more():
                    continue
                raise bad from None
            except RecursionError:
                raise BadJson("it is not JSON: nested too deeply") from None
            except ValueError:
                raise BadJson("it is not JSON: a number is too long") from None
            # A number that ends where the window ends may go on behind it.
            if end < len(self._text) or not self._more():
                break
        length, self._at = end - self._at, end
        if length > MAX_VALUE:
            raise TooLong
        return value

    def require_end(self) -> None:
        """Raise ``BadJson`` where anything follows."""
        if self.peek():
            raise self._bad("Extra data")

    def _take(self, wanted: str, otherwise: str) -> None:
        if self.peek() != wanted:
            raise self._bad(otherwise)
        self._at += 1

    def _more(self) -> bool:
        """Read on, twice as far each time that one value needs more; False at the end."""
        if self._ended:
            return False
        needed = len(self._text) - self._at
        if needed > MAX_VALUE:
            raise TooLong
        chunk = self._file.read(max(CHUNK, needed))
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = self._read - pending + error.start + 1
            raise BadJson(f"byte {place} is not UTF-8; save it as UTF-8") from None
        self._read += len(chunk)
        self._ended = not chunk
        if chunk:
            self._line, self._column = self._place(self._at)
            self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended

    def _place(self, at: int) -> tuple[int, int]:
        lines = self._text.count("\n", 0, at)
        return self._line + lines, at - self._text.rfind("\n", 0, at) - 1 if lines else self._column + at

    def _bad(self, reason: str, at: int | None = None) -> BadJson:
        line, column = self._place(self._at if at is None else at)
        return BadJson(f"it is not JSON: {reason} at line {line + 1}, column {column + 1}")
