"""A reverse proxy in front of an app that knows nothing of tokens: it reads who asks from a header.

    python examples/reverse_proxy/app.py           # both, and an issuer, until Ctrl-C, with curl lines to try
    python examples/reverse_proxy/app.py --check   # tries the lines itself: 0 all went as it must, 1 something did not

With an issuer of your own: `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn --no-proxy-headers
--no-server-header --no-date-header examples.reverse_proxy.app:app`, or without any code `oidc-middleware proxy
--upstream http://127.0.0.1:9000`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import httpx2

from oidc_middleware import OIDCMiddleware, Rule
from oidc_middleware.proxy import ReverseProxy
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind, serving_in_thread

AUDIENCE: Final = "https://app.example.com"

# The proxy: all there is to it. Settings that are not here come from OIDC_* variables.


def before(upstream: str) -> OIDCMiddleware:
    return OIDCMiddleware(
        ReverseProxy(upstream, connect_timeout=2, read_timeout=30),
        public=["/health"],
        rules=[Rule("/reports/*", scopes=["reports"])],
    )


app = before(os.environ.get("UPSTREAM", "http://127.0.0.1:9000"))

# The app behind it: here of the standard library, elsewhere in PHP, Go or Java.


class Greeting(BaseHTTPRequestHandler):
    """Greet whoever the header names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.path}: hello, {self.headers.get('X-Forwarded-User', 'stranger')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


# All of it on this machine, to try.


@contextmanager
def running() -> Iterator[tuple[str, FakeIssuer]]:
    issuer = FakeIssuer(audience=AUDIENCE)
    greeting = ThreadingHTTPServer(("127.0.0.1", 0), Greeting)
    greeting.daemon_threads = True
    thread = threading.Thread(target=greeting.serve_forever)
    thread.start()
    try:
        with issuer.serve_in_thread():
            os.environ |= {"OIDC_ISSUER": issuer.url, "OIDC_AUDIENCE": AUDIENCE}
            listening = bind("127.0.0.1", 0)
            with serving_in_thread(before(f"http://127.0.0.1:{greeting.server_port}"), listening):
                yield f"http://127.0.0.1:{listening.getsockname()[1]}", issuer
    finally:
        greeting.shutdown()
        greeting.server_close()
        thread.join()


def lines(issuer: FakeIssuer) -> list[tuple[str, dict[str, str], int, str]]:
    """Return path, headers, and what has to come back."""
    alice = {"Authorization": f"Bearer {issuer.token('alice')}"}
    bob = {"Authorization": f"Bearer {issuer.token('bob', scope='reports')}"}
    return [
        ("/health", {}, 200, "/health: hello, stranger"),
        ("/health", {"X-Forwarded-User": "root"}, 200, "/health: hello, stranger"),
        ("/", {}, 401, "missing_token"),
        ("/", alice, 200, "/: hello, alice"),
        ("/", alice | {"X_Forwarded_User": "root"}, 200, "/: hello, alice"),
        ("/reports/1", alice, 403, "insufficient_scope"),
        ("/reports/1?all", bob, 200, "/reports/1?all: hello, bob"),
    ]


def check(url: str, issuer: FakeIssuer) -> bool:
    with httpx2.Client(base_url=url, trust_env=False) as client:
        for path, headers, status, text in lines(issuer):
            answer = client.get(path, headers=headers)
            print(f"{answer.status_code} {answer.text.strip()}")
            if answer.status_code != status or text not in answer.text:
                print(f"It should have been {status} with {text}")
                return False
    print("All went as it must.")
    return True


def main() -> int:
    with running() as (url, issuer):
        if "--check" in sys.argv:
            return 0 if check(url, issuer) else 1
        for path, headers, status, _ in lines(issuer):
            options = "".join(f" -H '{name}: {value}'" for name, value in headers.items())
            print(f"# {status}\ncurl {url}{path}{options}\n")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
