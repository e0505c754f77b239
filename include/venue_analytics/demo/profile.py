"""What one demo keeps below `.local/`: data, logs, ports and secrets, apart from every other's."""

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
        pid: that process.
    """

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"the demo {name!r} is run by process {pid} already: use that one, or end it with "
            "`make down`"
        )
        self.pid = pid


@dataclass(frozen=True)
class Secrets:
    """Made once a profile, and read by its owner only."""

    fernet_key: str
    jwt_secret: str
    api_secret_key: str
    admin_password: str


@dataclass(frozen=True)
class Ports:
    """On 127.0.0.1; the same at every start unless somebody else has taken one."""

    ui: int
    valkey: int


@dataclass(frozen=True)
class Profile:
    """One demo: its name and where its state is."""

    name: str
    state: Path = STATE

    @classmethod
    def of_data(cls, file: Path) -> "Profile":
        """The profile of somebody's own purchases: one for each file."""
        slug = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:40]
        digest = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:6]
        return cls(f"data-{slug}-{digest}")

    @property
    def directory(self) -> Path:
        """Everything of this profile."""
        return self.state / self.name

    @property
    def postgres(self) -> Path:
        """The data of PostgreSQL."""
        return self.directory / "postgres"

    @property
    def valkey(self) -> Path:
        """The log of Valkey."""
        return self.directory / "valkey"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME: the tasks' logs, and what Airflow writes by itself."""
        return self.directory / "airflow"

    @property
    def logs(self) -> Path:
        """The logs of the processes that the supervisor starts."""
        return self.directory / "logs"

    @property
    def processes(self) -> Path:
        """The list of those processes."""
        return self.directory / "processes.json"

    def secrets(self) -> Secrets:
        """The secrets, made if they are not there yet."""
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
        """The ports of this start: the remembered ones where they are free."""
        file = self.directory / "ports.json"
        remembered = json.loads(file.read_text()) if file.exists() else {}
        ports = Ports(
            ui=free_port(remembered.get("ui")), valkey=free_port(remembered.get("valkey"))
        )
        write_private(file, json.dumps(asdict(ports)))
        return ports

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that starts and stops servers of this profile.

        Raises:
            ProfileBusyError: another process is.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        # Opened without truncating: the text is the holder's.
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
    """Every profile that has a state."""
    if not state.is_dir():
        return []
    return [Profile(entry.name, state) for entry in sorted(state.iterdir()) if entry.is_dir()]


def write_private(file: Path, text: str) -> None:
    """Write a file as a whole, which only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    new.replace(file)
