"""Load SQL statements; each is a file next to the code that runs it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def statement(package: str, name: str) -> LiteralString:
    """Return the text of `sql/<name>.sql` in a package.

    It is typed as a literal, as psycopg requires of a query: the text is part of this project, and
    values are bound as parameters.
    """
    return files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
