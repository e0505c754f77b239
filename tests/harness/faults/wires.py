"""Proxies between a worker and its servers: they count its messages, and interfere at one.

A message is what the worker sends before it waits for an answer: a whole round trip to PostgreSQL,
or one command to Redis. Messages that open a connection are passed on without being counted.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.databases import Database

from venue_analytics.harness.leases import RELEASE, RENEW, TAKE

SOCKET = ".s.PGSQL.5432"
WAIT_SECONDS = 20.0
SCRIPTS = {TAKE: "take lease", RENEW: "renew lease", RELEASE: "release lease"}
#: The commands that redis-py sends when it connects.
HANDSHAKE = frozenset({"HELLO", "CLIENT", "AUTH", "SELECT"})

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Messages = AsyncIterator[tuple[bytes, str | None]]


@dataclass(frozen=True)
class Message:
    """A message of a worker.

    Attributes:
        number: counted from 1 over both servers.
        text: the SQL without its comments; for Redis, `redis: ` and the command, or what the
            lease's script does.
    """

    number: int
    text: str

    def __str__(self) -> str:
        return f"message {self.number} ({self.text[:60]})"


class Hold:
    """A message that is held until it is released."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reached = threading.Event()
        self._go_on = asyncio.Event()

    def wait(self) -> None:
        """Wait until the message has arrived."""
        assert self._reached.wait(WAIT_SECONDS), "the message never came"

    def let_go(self) -> None:
        """Pass the message on."""
        self._loop.call_soon_threadsafe(self._go_on.set)

    async def keep(self) -> None:
        """Hold the message until it is released."""
        self._reached.set()
        await self._go_on.wait()


@dataclass(frozen=True)
class _Strike:
    at: Callable[[Message], bool]
    act: Callable[[], None]
    answered: bool = False
    hold: Hold | None = None


@dataclass
class _Answers:
    """Whether the server's answers are withheld, and whether one has come since."""

    muted: bool = False
    come: asyncio.Event = field(default_factory=asyncio.Event)


class Wires:
    """Proxies between a worker and its two servers; a context manager."""

    def __init__(self, database: Database, redis_port: int) -> None:
        self.messages: list[Message] = []
        self._database = database
        self._redis_port = redis_port
        self._strike: _Strike | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wires")

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix="wires-")
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS), "the wires did not come up"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._directory.cleanup()

    @property
    def database_uri(self) -> str:
        """The address of the database through the wires."""
        host = quote(self._directory.name, safe="")
        return f"postgresql://analytics_jobs@/{self._database.name}?host={host}"

    @property
    def redis_uri(self) -> str:
        """The address of Redis through the wires."""
        return f"redis://127.0.0.1:{self._own_redis_port}/0"

    def cut_at(
        self, at: Callable[[Message], bool], act: Callable[[], None], *, answered: bool
    ) -> None:
        """Act at a message, then cut its connection.

        Args:
            at: whether this is the message.
            act: the action, such as killing the worker.
            answered: act after the server has answered, but before the worker gets the answer;
                else before the server sees the message.
        """
        self._strike = _Strike(at, act, answered)

    def hold_at(self, at: Callable[[Message], bool], act: Callable[[], None]) -> Hold:
        """Act at a message, such as pausing the worker, and hold it until it is released."""
        hold = Hold(self._loop)
        self._strike = _Strike(at, act, hold=hold)
        return hold

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        behind = self._database.server.socket_directory / SOCKET

        async def postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_postgres = asyncio.open_unix_connection(behind)
            await self._join((reader, writer), to_postgres, _postgres_messages(reader))

        async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_redis = asyncio.open_connection("127.0.0.1", self._redis_port)
            await self._join((reader, writer), to_redis, _redis_commands(reader))

        servers = [
            await asyncio.start_unix_server(postgres, Path(self._directory.name) / SOCKET),
            await asyncio.start_server(redis, "127.0.0.1", 0),
        ]
        self._own_redis_port = servers[1].sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        for server in servers:
            server.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the loop's next iteration

    async def _join(self, worker: Stream, behind: Awaitable[Stream], messages: Messages) -> None:
        """Pass data on in both directions until either side is gone."""
        server = await behind
        answers = _Answers()
        passing = [
            asyncio.create_task(self._pass_messages(messages, server[1], answers)),
            asyncio.create_task(self._pass_answers(server[0], worker[1], answers)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # the wires are closed
        finally:
            for task in passing:
                task.cancel()
            for _, writer in (worker, server):
                writer.transport.abort()

    async def _pass_messages(
        self, messages: Messages, server: asyncio.StreamWriter, answers: _Answers
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            async for raw, text in messages:
                if strike := self._strikes(text):
                    if strike.answered:
                        answers.muted = True
                        server.write(raw)
                        await answers.come.wait()
                    strike.act()
                    if strike.hold is None:
                        return
                    await strike.hold.keep()
                server.write(raw)
                await server.drain()

    async def _pass_answers(
        self, server: asyncio.StreamReader, worker: asyncio.StreamWriter, answers: _Answers
    ) -> None:
        with suppress(OSError):
            while answer := await server.read(65536):
                if answers.muted:
                    break
                worker.write(answer)
                await worker.drain()
        if answers.muted:
            answers.come.set()
            await asyncio.Event().wait()  # the other task ends the connection

    def _strikes(self, text: str | None) -> _Strike | None:
        if text is None:
            return None
        message = Message(len(self.messages) + 1, text)
        self.messages.append(message)
        if self._strike is not None and self._strike.at(message):
            strike, self._strike = self._strike, None
            return strike
        return None


async def _postgres_messages(reader: asyncio.StreamReader) -> Messages:
    """Yield the worker's round trips, each with its SQL; those that open a connection have none."""
    length = await reader.readexactly(4)
    yield length + await reader.readexactly(int.from_bytes(length, "big") - 4), None
    prepared: dict[bytes, bytes] = {}
    sent, queries = b"", []
    while kind := await reader.read(1):
        length = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(length, "big") - 4)
        sent += kind + length + body
        if kind == b"Q":  # a simple query
            queries.append(body.split(b"\0")[0])
        elif kind == b"P":  # parse: the statement's name, the query
            name, query = body.split(b"\0")[:2]
            prepared[name] = query
        elif kind == b"B":  # bind: the portal's name, the statement's
            queries.append(prepared[body.split(b"\0")[1]])
        elif kind == b"X":
            queries.append(b"close the connection")
        if kind in (b"Q", b"S", b"X"):  # after these the worker waits; S is a sync
            text = "; ".join(_without_comments(query.decode()) for query in queries)
            yield sent, text or "prepare a statement"
            sent, queries = b"", []


async def _redis_commands(reader: asyncio.StreamReader) -> Messages:
    """Yield the worker's commands; those that open a connection have no text."""
    while head := await reader.readline():
        sent, words = head, []
        for _ in range(int(head[1:])):
            size = await reader.readline()
            word = await reader.readexactly(int(size[1:]) + 2)
            sent += size + word
            words.append(word[:-2].decode())
        command = words[0].upper()
        text = SCRIPTS.get(words[1], "a script") if command == "EVAL" else command
        yield sent, None if command in HANDSHAKE else f"redis: {text}"


def _without_comments(query: str) -> str:
    lines = (line for line in query.splitlines() if not line.lstrip().startswith("--"))
    return " ".join(" ".join(lines).split())
