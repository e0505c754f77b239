"""The project's SQL: each statement lives in a file of its own beside the code that runs it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def statement(package: str, name: str) -> LiteralString:
    """Read `sql/<name>.sql` of a package.

    The text is a literal of this project, which is what psycopg asks of a query; values are
    bound, never put into it.
    """
    return files(package).joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
