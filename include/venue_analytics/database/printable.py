"""Make text safe for any terminal, log and database."""

from __future__ import annotations


def printable(text: str, at_most: int | None = None, keep: str = "") -> str:
    r"""Return text with unprintable characters escaped, truncated to a maximum length.

    Args:
        text: any text; a byte that is not UTF-8, read with `surrogateescape`, becomes \xff.
        at_most: maximum length of the result in characters; a truncated text ends in an ellipsis.
        keep: unprintable characters that are not escaped.
    """
    looked_at = text if at_most is None else text[: at_most + 1]
    if not looked_at.isprintable():
        looked_at = "".join(c if c.isprintable() or c in keep else _escaped(c) for c in looked_at)
    if at_most is None or len(looked_at) <= at_most:
        return looked_at
    return looked_at[: at_most - 1] + "…"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
