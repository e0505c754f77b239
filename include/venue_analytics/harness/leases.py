"""Leases in Redis, which keep workers out of each other's way.

Correctness does not depend on them: Redis may forget a lease, and a holder may sleep past its own.
The fencing token, in PostgreSQL, decides what may be written.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from venue_analytics.harness.errors import LeaseLostError, TransientError

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)

#: How long a lease lasts that nobody renews, and how often a living holder renews it.
LENGTH = timedelta(seconds=30)
RENEWAL = timedelta(seconds=10)

#: Returns the text of another holder, or nothing once the lease is ours: it was free, ours already,
#: or held by ARGV[3], who may be taken over.
TAKE = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
#: Returns 1 if the lease is ours for another length; sets a lease again that Redis has forgotten.
RENEW = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
#: Returns 1 if the lease was ours and is deleted.
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and for which work.

    Attributes:
        deployment: the Airflow, or the command line's run.
        run_id: the run.
        batch: its batch.
        try_number: the batch's try.
        as_of: what its results are as of.
        rules_hash: of the settings that shape the unit's results.
        process: one process's own mark.
    """

    deployment: UUID
    run_id: str
    batch: int
    try_number: int
    as_of: datetime
    rules_hash: str
    process: UUID

    @cached_property
    def text(self) -> str:
        """It as the lease's value."""
        return json.dumps(vars(self), default=str, sort_keys=True)

    @classmethod
    def read(cls, text: str) -> Holder | None:
        """Read a lease's value; None if it is not one of ours."""
        try:
            values = json.loads(text)
            return cls(
                UUID(values["deployment"]),
                values["run_id"],
                values["batch"],
                values["try_number"],
                datetime.fromisoformat(values["as_of"]),
                values["rules_hash"],
                UUID(values["process"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def is_attempt(self, deployment: UUID, run_id: str, batch: int, try_number: int) -> bool:
        """Return whether it is that try of that batch."""
        own = (self.deployment, self.run_id, self.batch, self.try_number)
        return own == (deployment, run_id, batch, try_number)

    def is_earlier_try_than(self, other: Holder) -> bool:
        """Return whether this is an earlier try of the same batch: dead, or about to be."""
        own = (self.deployment, self.run_id, self.batch)
        return (
            own == (other.deployment, other.run_id, other.batch)
            and self.try_number < other.try_number
        )

    def does_the_work_of(self, other: Holder) -> bool:
        """Return whether it does the same work, so that its success would be the other's."""
        return (self.as_of, self.rules_hash) == (other.as_of, other.rules_hash)

    def __str__(self) -> str:
        """Return it for people."""
        return f"run {self.run_id}, try {self.try_number} of batch {self.batch}"


@dataclass(frozen=True)
class Held:
    """Somebody else has the lease; `holder` is None if the value cannot be parsed."""

    holder: Holder | None


class Leases:
    """The leases of one job: one a unit.

    Every method raises TransientError if Redis does not answer.
    """

    def __init__(self, client: redis.Redis, job: str, *, length: timedelta = LENGTH) -> None:
        self.length = length
        self._client = client
        self._job = job
        self._milliseconds = round(length.total_seconds() * 1000)

    def ping(self) -> None:
        """Check that Redis answers."""
        with _reachable():
            self._client.ping()

    def take(self, wanted: Mapping[UUID, Holder]) -> dict[UUID, Held]:
        """Take the leases of units; return those that somebody else holds.

        An earlier try of the same batch is taken over at once; a later one never is.
        """
        held = self._take({unit_id: (holder, holder.text) for unit_id, holder in wanted.items()})
        earlier = {}
        for unit_id, text in held.items():
            other = Holder.read(text)
            if other is not None and other.is_earlier_try_than(wanted[unit_id]):
                earlier[unit_id] = (wanted[unit_id], text)
        still = self._take(earlier)
        return {
            unit_id: Held(Holder.read(still.get(unit_id, text)))
            for unit_id, text in held.items()
            if unit_id not in earlier or unit_id in still
        }

    def are_held(self, holders: Mapping[UUID, Holder]) -> dict[UUID, bool]:
        """Return for each unit whether this holder has its lease."""
        texts = self._get(holders)
        return {unit_id: texts[unit_id] == holder.text for unit_id, holder in holders.items()}

    def holder(self, unit_id: UUID) -> Holder | None:
        """Return who holds a unit's lease; None if it is free, or its value cannot be parsed."""
        text = self._get([unit_id])[unit_id]
        return Holder.read(text) if text is not None else None

    def renew(self, holders: Mapping[UUID, Holder]) -> dict[UUID, bool]:
        """Renew leases for another length; return False where somebody else has it now."""
        answers = self._eval(RENEW, {v: (h.text, self._milliseconds) for v, h in holders.items()})
        return {unit_id: bool(answer) for unit_id, answer in answers.items()}

    def release(self, holders: Mapping[UUID, Holder]) -> None:
        """Release leases that are still ours."""
        self._eval(RELEASE, {unit_id: (holder.text,) for unit_id, holder in holders.items()})

    def _take(self, wanted: Mapping[UUID, tuple[Holder, str]]) -> dict[UUID, str]:
        arguments = {
            unit_id: (holder.text, self._milliseconds, instead_of)
            for unit_id, (holder, instead_of) in wanted.items()
        }
        answers = self._eval(TAKE, arguments)
        return {unit_id: _text(held) for unit_id, held in answers.items() if held is not None}

    def _key(self, unit_id: UUID) -> str:
        return f"venue_analytics:lease:{self._job}:{unit_id}"

    def _get(self, unit_ids: Iterable[UUID]) -> dict[UUID, str | None]:
        ids = list(unit_ids)
        with _reachable(), self._client.pipeline(transaction=False) as pipeline:
            for unit_id in ids:
                pipeline.get(self._key(unit_id))
            answers = pipeline.execute()
        return {
            unit_id: None if answer is None else _text(answer)
            for unit_id, answer in zip(ids, answers, strict=True)
        }

    def _eval(self, script: str, arguments: Mapping[UUID, tuple[Any, ...]]) -> dict[UUID, Any]:
        if not arguments:
            return {}
        with _reachable(), self._client.pipeline(transaction=False) as pipeline:
            for unit_id, values in arguments.items():
                pipeline.eval(script, 1, self._key(unit_id), *values)
            return dict(zip(arguments, pipeline.execute(), strict=True))


class LeaseKeeper:
    """Renews the leases that it holds, in a thread that also runs during a query.

    Used as a context; at its end it releases what it still holds.
    """

    def __init__(self, leases: Leases, *, every: timedelta = RENEWAL) -> None:
        self._leases = leases
        self._every = every.total_seconds()
        self._kept: dict[UUID, Holder] = {}
        # the moment until which, by this process's clock, Redis has promised the lease
        self._until: dict[UUID, float] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_renewing, name="lease renewal", daemon=True
        )

    def __enter__(self) -> Self:
        """Start to renew."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what is left, and stop."""
        try:
            self._stop.set()
            self._thread.join()
        finally:
            self.release(list(self._kept))

    def take(self, wanted: Mapping[UUID, Holder]) -> dict[UUID, Held]:
        """Take leases and keep them renewed; return those that somebody else holds."""
        began = time.monotonic()
        try:
            held = self._leases.take(wanted)
        except Exception:
            raise
        except BaseException:
            # stopped between Redis's answer and the line below that stores it
            self._leases.release(wanted)
            raise
        with self._lock:
            for unit_id, holder in wanted.items():
                if unit_id not in held:
                    self._kept[unit_id] = holder
                    self._until[unit_id] = began + self._leases.length.total_seconds()
        return held

    def are_held(self, holders: Mapping[UUID, Holder]) -> dict[UUID, bool]:
        """Ask Redis which of these leases are still ours."""
        return self._leases.are_held(holders)

    def check(self, unit_id: UUID) -> None:
        """Check that a lease is ours before a transaction is opened on it.

        Raises:
            LeaseLostError: somebody else has it.
            TransientError: it has expired, and Redis does not answer.
        """
        with self._lock:
            holder = self._kept.get(unit_id)
            has_expired = time.monotonic() >= self._until.get(unit_id, 0)
        if holder is not None and has_expired:
            self._renew({unit_id: holder})
            holder = self._kept.get(unit_id)
        if holder is None:
            raise LeaseLostError("its lease is lost: another attempt has taken over")

    def release(self, unit_ids: Iterable[UUID]) -> None:
        """Release leases; one that cannot be released expires by itself."""
        with self._lock:
            kept = {v: self._kept.pop(v) for v in unit_ids if v in self._kept}
            for unit_id in kept:
                self._until.pop(unit_id, None)
        try:
            self._leases.release(kept)
        except TransientError as error:
            log.warning("%d leases will expire by themselves: %s", len(kept), error)
        except BaseException:
            # stopped before Redis answered: they are released at the end
            with self._lock:
                self._kept |= kept
            raise

    def _keep_renewing(self) -> None:
        while not self._stop.wait(self._every):
            with self._lock:
                kept = dict(self._kept)
            try:
                self._renew(kept)
            except TransientError as error:
                log.warning("leases were not renewed: %s", error)

    def _renew(self, kept: Mapping[UUID, Holder]) -> None:
        until = time.monotonic() + self._leases.length.total_seconds()
        ours = self._leases.renew(kept)
        with self._lock:
            for unit_id, is_ours in ours.items():
                # only the very lease that was renewed: it may have been released, and taken again
                if self._kept.get(unit_id) is kept[unit_id]:
                    self._until[unit_id] = until
                    if not is_ours:
                        log.warning("somebody else has the lease of unit %s now", unit_id)
                        del self._kept[unit_id]
                        self._until.pop(unit_id, None)
            released = {v: h for v, h in kept.items() if self._kept.get(v) is not h}
        # what was released while it was renewed has just been set again
        self._leases.release(released)


@contextmanager
def _reachable() -> Iterator[None]:
    import redis  # here: 0.1 s, which a DAG file's parsing does not need

    try:
        yield
    except redis.RedisError as error:
        text = " ".join(str(error).split())
        raise TransientError(f"Redis does not answer: {text} ({type(error).__name__})") from None


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
