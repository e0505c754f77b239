"""The jobs. Each is a package in this folder that defines `JOB`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from venue_analytics.harness import Job


class _Jobs(Mapping[str, Job[Any]]):
    """The jobs by name; each is imported at its first lookup."""

    def __getitem__(self, name: str) -> Job[Any]:
        if not any(name == known for known in self):
            raise KeyError(name)
        package = import_module(f"{__name__}.{name}")
        job: Job[Any] | None = getattr(package, "JOB", None)
        if job is None or job.name != name:
            found = "no JOB" if job is None else f"a JOB named {job.name!r}"
            raise TypeError(f"{package.__name__} has {found}: must be a JOB named {name!r}")
        return job

    def __iter__(self) -> Iterator[str]:
        return (module.name for module in iter_modules(__path__) if module.ispkg)

    def __len__(self) -> int:
        return sum(1 for _ in self)


JOBS = _Jobs()
