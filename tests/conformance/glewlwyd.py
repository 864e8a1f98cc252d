"""Debian's `glewlwyd` as a process: a second provider, in C, whose issuer has a path and whose JWTs it introspects."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
from joserfc.jwk import ECKey, RSAKey

PROGRAM = "glewlwyd"
SCHEMA = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3")
CLIENT = ("service", "service-secret")
AUDIENCE = "api read"
"""What its tokens carry in `aud`: the scopes that were asked for, as one string."""
READY_SECONDS = 30
ATTEMPTS = 5

_CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{port}"
login_url="login.html"
api_prefix="api"
static_files_path="/usr/share/glewlwyd/webapp/"
log_mode="console"
log_level="WARNING"
cookie_domain="127.0.0.1"
cookie_secure=0
session_expiration=2419200
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
user_middleware_module_path="{folder}"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database={{ type="sqlite3" path="{folder}/glewlwyd.db" }};
"""


def is_here() -> bool:
    """Tell whether Debian's package is installed."""
    return shutil.which(PROGRAM) is not None and SCHEMA.is_file()


class Glewlwyd:
    """A process on a loopback port with a database of its own, and one OpenID plugin, which is the issuer.

    The key ids are those of the other provider, so that nobody can rely on them; the keys are its own.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="glewlwyd-")
        folder = Path(self._folder.name)
        with sqlite3.connect(folder / "glewlwyd.db") as database:
            database.executescript(SCHEMA.read_text("utf-8"))
        database.close()
        self._log = (folder / "log").open("w+")
        self._process, port = self._start(folder)
        self.issuer = f"http://127.0.0.1:{port}/api/oidc"
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False, timeout=10)
        try:
            self._set_up()
        except BaseException:
            self.stop()
            raise

    def _start(self, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
        """Start it on a free port, and once more where somebody else was faster."""
        config = folder / "glewlwyd.conf"
        for _ in range(ATTEMPTS):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            config.write_text(_CONFIG.format(port=port, folder=folder))
            process = subprocess.Popen(
                [PROGRAM, f"--config-file={config}"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
            )
            if _listens(process, port):
                return process, port
            process.kill()
            process.wait()
        self._log.seek(0)
        message = f"glewlwyd did not start:\n{self._log.read()}"
        raise RuntimeError(message)

    def _set_up(self) -> None:
        """Do what its administrator does: sign in, make the issuer, its scopes, a user and a client."""
        self._post("/auth/", username="admin", password="password")
        self._post(
            "/mod/plugin/", module="oidc", name="oidc", display_name="OIDC", enabled=True, parameters=self._parameters()
        )
        for name in ("api", "read"):
            self._post("/scope/", name=name, display_name=name, password_required=False, scheme={})
        self._post("/user/", username="alice", password="alice-password", enabled=True, scope=["api", "read"])
        client_id, secret = CLIENT
        self._post(
            "/client/",
            client_id=client_id,
            password=secret,
            client_secret=secret,
            confidential=True,
            enabled=True,
            redirect_uri=["https://client.example/callback"],
            authorization_type=["client_credentials", "password"],
            token_endpoint_auth_method=["client_secret_basic"],
            scope=["api", "read"],
        )

    def _parameters(self) -> dict[str, Any]:
        rsa, ec = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
        keys = [
            {**rsa.as_dict(private=True), "kid": "first-RSA", "alg": "RS256", "use": "sig"},
            {**ec.as_dict(private=True), "kid": "first-P-256", "alg": "ES256", "use": "sig"},
        ]
        return {
            "iss": self.issuer,
            "jwks-private": json.dumps({"keys": keys}),
            "default-kid": "first-RSA",
            "jwks-show": True,
            "access-token-duration": 300,
            "refresh-token-duration": 3600,
            "code-duration": 60,
            "allow-non-oidc": True,
            "auth-type-client-enabled": True,
            "auth-type-code-enabled": True,
            "auth-type-password-enabled": True,
            "auth-type-refresh-enabled": True,
            "subject-type": "public",
            "introspection-revocation-allowed": True,
            "introspection-revocation-allow-target-client": True,
        }

    def _post(self, path: str, **body: Any) -> None:
        answer = self._http.post(path, json=body)
        assert answer.status_code == httpx2.codes.OK, (path, answer.status_code, answer.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the process, as a crash would. Twice is once."""
        if self._process.returncode is not None:
            return
        self._process.kill()
        self._process.wait()
        self._http.close()
        self._log.close()
        self._folder.cleanup()

    # What OAuth knows.

    def client_credentials(self, scope: str = AUDIENCE) -> str:
        """Return an access token of the client itself (RFC 6749 §4.4)."""
        return str(self._token(grant_type="client_credentials", scope=scope)["access_token"])

    def sign_in(self, scope: str = AUDIENCE) -> dict[str, Any]:
        """Return the token response for `alice` (RFC 6749 §4.3, which this provider still has)."""
        return self._token(grant_type="password", username="alice", password="alice-password", scope=scope)

    def revoke(self, token: str) -> None:
        """Revoke a token of the client (RFC 7009 §2.1)."""
        answer = self._http.post("/oidc/revoke", data={"token": token}, auth=CLIENT)
        assert answer.status_code == httpx2.codes.OK, answer.text

    def jwks(self) -> dict[str, Any]:
        """Return the keys that it publishes."""
        found: dict[str, Any] = self._http.get("/oidc/jwks").json()
        return found

    def introspect(self, token: str) -> dict[str, Any]:
        """Return what it says about a token (RFC 7662 §2.2)."""
        found: dict[str, Any] = self._http.post("/oidc/introspect", data={"token": token}, auth=CLIENT).json()
        return found

    def _token(self, **form: str) -> dict[str, Any]:
        answer = self._http.post("/oidc/token", data=form, auth=CLIENT)
        assert answer.status_code == httpx2.codes.OK, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the process accepts connections; tell whether it does, or is gone."""
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = httpx2.get(f"http://127.0.0.1:{port}/config", trust_env=False, timeout=5)
        except httpx2.HTTPError:
            time.sleep(0.02)
        else:
            # Another process may have taken the port; this one would have ended then.
            return answer.status_code == httpx2.codes.OK and process.poll() is None
    return False
