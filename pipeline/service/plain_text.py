"""Text for people: what strangers wrote, and numbers of things. Loads nothing: the health check uses it, too."""

from __future__ import annotations


def plain(text: str) -> str:
    """
    Return *text* on one line, with the escape (backslash, x1b) of each character that does not show as itself.

    Control characters steer a terminal (ESC begins commands, of which some write the clipboard, as do those from 0x80
    to 0x9f), line ends forge lines, marks of direction show a text in another order, and half a surrogate pair cannot
    be printed at all.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def counted(number: int, noun: str) -> str:
    """Return the number with the noun, which gets an s unless there is one of it."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
