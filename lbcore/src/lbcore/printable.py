"""How names and messages are written, so that no file name can move the cursor or break a line."""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def printable(name: bytes) -> str:
    r"""A file name as one line of text: what is no printable UTF-8 is written as ``\xNN``, byte by byte.

    Different names stay different: a backslash is doubled.
    """
    text = name.decode("utf-8", "surrogateescape")
    return text if text.isprintable() and "\\" not in text else "".join(map(_escape, text))


def printable_message(text: str) -> str:
    """A message with the characters escaped that could not be seen; its lines stay lines."""
    return "".join(char if char in "\n\\" or char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", _errors(char)))


def _errors(char: str) -> str:
    """Surrogates that do not stand for a byte are encoded as what they are."""
    return "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
