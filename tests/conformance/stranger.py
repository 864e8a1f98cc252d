"""The npm provider as a process: start it, sign in there, rotate its keys, break it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from .node import HERE, find_node

AUDIENCE = "https://api.example"
REDIRECT_URI = "https://client.example/callback"
READY_SECONDS = 30
MOST_REDIRECTS = 12


class Stranger:
    """`oidc-provider` on a loopback port.

    `resource` names the kind of access token, as the table in `provider.mjs` lists them: `rs256`, `opaque`, `short` ...
    People log in at `apps`, the addresses of apps whose client is `app` or `app-keyed`; the first is told of logouts.
    """

    def __init__(
        self, port: int = 0, generation: str = "first", redirect_uri: str | None = None, apps: Sequence[str] = ()
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [
                *(*find_node().node, str(HERE / "provider.mjs"), "--port", str(port), "--generation", generation),
                *(() if redirect_uri is None else ("--redirect-uri", redirect_uri)),
                *(word for url in apps for word in ("--app", url)),
            ],
            cwd=HERE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.port = self._wait_until_ready()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._http = httpx2.Client(base_url=self.issuer, trust_env=False, timeout=10)

    def _wait_until_ready(self) -> int:
        # A provider that hangs is killed, which ends the read of its output.
        killer = threading.Timer(READY_SECONDS, self._process.kill)
        killer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout else ""
        finally:
            killer.cancel()
        if not line:
            self._process.wait()
            self._log.seek(0)
            message = f"the provider did not start:\n{self._log.read()}"
            raise RuntimeError(message)
        return int(json.loads(line)["port"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the process, as a crash would; its port refuses connections from here on. Twice is once."""
        if self._process.returncode is not None:
            return
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._http.close()

    def freeze(self) -> None:
        """Let it hang: connections are accepted, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    # What OpenID knows.

    def discovery(self) -> dict[str, Any]:
        """Return the provider's metadata."""
        return self._json(self._http.get("/.well-known/openid-configuration"))

    def jwks(self) -> dict[str, Any]:
        """Return the published keys."""
        return self._json(self._http.get("/jwks"))

    def client_credentials(self, resource: str = "rs256", scope: str = "read", dpop: str | None = None) -> str:
        """Return an access token of the client itself (RFC 6749 §4.4)."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource_uri(resource)}
        headers = {} if dpop is None else {"DPoP": dpop}
        answer = self._http.post("/token", data=form, auth=("service", "service-secret"), headers=headers)
        return str(self._json(answer)["access_token"])

    def sign_in(
        self,
        subject: str = "alice",
        resource: str | None = "rs256",
        scope: str = "openid offline_access read",
        client: str = "web",
    ) -> dict[str, str]:
        """Return the token response of the code flow with PKCE (OIDC Core §3.1), signed in and consented by form."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": scope,
            "state": secrets.token_urlsafe(8),
            "nonce": secrets.token_urlsafe(8),
            "prompt": "consent",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if resource is not None:
            query["resource"] = resource_uri(resource)
        answer = self._pass_login_and_consent(query, subject)
        assert answer["state"] == query["state"]
        assert answer["iss"] == self.issuer
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": REDIRECT_URI,
            "code_verifier": verifier,
        }
        return self._json(self._http.post("/token", data=form, auth=(client, f"{client}-secret")))

    def refresh(self, refresh_token: str) -> dict[str, str]:
        """Return the token response for a refresh token of the client `web` (RFC 6749 §6)."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._json(self._http.post("/token", data=form, auth=("web", "web-secret")))

    def userinfo(self, access_token: str) -> httpx2.Response:
        """Return the userinfo answer (OIDC Core §5.3)."""
        return self._http.get("/me", headers={"Authorization": f"Bearer {access_token}"})

    def _pass_login_and_consent(self, query: Mapping[str, str], subject: str) -> dict[str, str]:
        return self.browse(f"{self.issuer}/auth?{urlencode(query)}", subject, REDIRECT_URI)

    def browse(self, url: str, subject: str, redirect_uri: str) -> dict[str, str]:
        """Do what a browser and its user do, and return the query of the redirect to the client."""
        with httpx2.Client(base_url=self.issuer, trust_env=False, timeout=10) as browser:
            answer = browser.get(url)
            for _ in range(MOST_REDIRECTS):
                if answer.has_redirect_location:
                    location = answer.headers["Location"]
                    if location.startswith(redirect_uri):
                        return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
                    answer = browser.get(location)
                else:
                    action, form = _form(answer, subject)
                    answer = browser.post(action, data=form)
        message = f"no way through the login pages: {answer.status_code} {answer.text[:500]}"
        raise AssertionError(message)

    @staticmethod
    def _json(answer: httpx2.Response) -> dict[str, Any]:
        assert answer.status_code == httpx2.codes.OK, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def revoke(self, token: str, client: str = "service") -> None:
        """Revoke a token of a client (RFC 7009 §2.1)."""
        answer = self._http.post("/token/revocation", data={"token": token}, auth=(client, f"{client}-secret"))
        assert answer.status_code == httpx2.codes.OK, answer.text

    # What only a test may do.

    def client_key(self) -> str:
        """Return the private key of the clients `api-keyed` and `app-keyed` in PEM."""
        return str(self._json(self._http.get("/__control/client-key"))["pem"])

    def publish(self, *generations: str) -> None:
        """Publish the keys of these generations (a process starts with `first`) and sign with those named first."""
        self._json(self._http.post("/__control/keys", json={"generations": generations}))

    def fault(self, **by_endpoint: Mapping[str, int]) -> None:
        """Replace all faults: `jwks={"delay": 300}` (milliseconds) or `jwks={"status": 500}`; none means healthy."""
        self._json(
            self._http.post("/__control/faults", json={f"/{path}": fault for path, fault in by_endpoint.items()})
        )

    def lives(self, **seconds: float) -> None:
        """Let tokens without a resource live so long from now on: `AccessToken=2`; none means as usual."""
        self._json(self._http.post("/__control/lives", json=seconds))

    def requests(self) -> Counter[str]:
        """Return how many requests each path has seen."""
        return Counter(self._json(self._http.get("/__control/requests")))


def resource_uri(resource: str) -> str:
    """Return the resource indicator (RFC 8707) for a name of the table in `provider.mjs`."""
    return resource if "://" in resource else f"{AUDIENCE}/{resource}"


def _form(page: httpx2.Response, subject: str) -> tuple[str, dict[str, str]]:
    """Return where a login or consent page's form goes and what to post there."""
    action = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    prompt = re.search(r'name="prompt" value="([^"]+)"', page.text)
    assert action is not None, page.text
    assert prompt is not None, page.text
    form = {"prompt": prompt[1]} | ({"login": subject, "password": "any"} if prompt[1] == "login" else {})
    return html.unescape(action[1]), form
