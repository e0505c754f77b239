"""The state of one demo below `.local/`: data, logs, ports and secrets."""

import base64
import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from venue_analytics.demo.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
STATE = ROOT / ".local"


class ProfileBusyError(RuntimeError):
    """Another process runs this profile.

    Attributes:
        pid: the id of that process.
    """

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"the demo {name!r} is already running as process {pid}: use it, or end it with "
            "`make down`"
        )
        self.pid = pid


@dataclass(frozen=True)
class Secrets:
    """The secrets of a profile: generated once, in a file that only its owner can read."""

    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    admin_password: str


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1; the same at every start unless one of them is taken."""

    ui: int
    valkey: int


@dataclass(frozen=True)
class Profile:
    """One demo: its name and the directory of all states."""

    name: str
    state: Path = STATE

    @classmethod
    def of_data(cls, file: Path) -> "Profile":
        """Return the profile of a file of purchases; each file has its own."""
        slug = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:40]
        digest = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:6]
        return cls(f"data-{slug}-{digest}")

    @property
    def directory(self) -> Path:
        """The directory of this profile."""
        return self.state / self.name

    @property
    def postgres(self) -> Path:
        """The data directory of PostgreSQL."""
        return self.directory / "postgres"

    @property
    def valkey(self) -> Path:
        """The directory of Valkey's log."""
        return self.directory / "valkey"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME, with the tasks' logs."""
        return self.directory / "airflow"

    @property
    def logs(self) -> Path:
        """The logs of the processes that the supervisor starts."""
        return self.directory / "logs"

    @property
    def processes(self) -> Path:
        """The record of those processes."""
        return self.directory / "processes.json"

    def secrets(self) -> Secrets:
        """Return the secrets; generate them if there are none."""
        file = self.directory / "secrets.json"
        if not file.exists():
            made = Secrets(
                fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                jwt_secret=secrets.token_urlsafe(48),
                api_secret_key=secrets.token_urlsafe(48),
                admin_password=secrets.token_urlsafe(9),
            )
            write_private(file, json.dumps(asdict(made), indent=2))
        return Secrets(**json.loads(file.read_text()))

    def ports(self) -> Ports:
        """Choose the ports of this start: the last ones if they are free."""
        file = self.directory / "ports.json"
        remembered = json.loads(file.read_text()) if file.exists() else {}
        ports = Ports(
            ui=free_port(remembered.get("ui")), valkey=free_port(remembered.get("valkey"))
        )
        write_private(file, json.dumps(asdict(ports)))
        return ports

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the profile: only the holder starts and stops its servers.

        Raises:
            ProfileBusyError: another process holds the lock.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        # Do not truncate: the file has the holder's process id.
        with (self.directory / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise ProfileBusyError(self.name, int(lock.read() or 0)) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield


def profiles(state: Path = STATE) -> list[Profile]:
    """Return every profile that has a directory."""
    if not state.is_dir():
        return []
    return [Profile(entry.name, state) for entry in sorted(state.iterdir()) if entry.is_dir()]


def write_private(file: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    new.replace(file)
