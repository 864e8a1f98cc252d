"""Login proxies in front of an app: Apache with mod_auth_openidc, Traefik that asks our forward auth, our own proxy."""

from __future__ import annotations

import datetime as dt
import html
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from traffic import AUDIENCE, issuer

from oidc_middleware.testing import FakeIssuer

CLIENT, CLIENT_SECRET, SECRET = "web", "a secret of the client", "0123456789abcdef0123456789abcdef"
_MODULES = Path("/usr/lib/apache2/modules")
_LOADED = ("mpm_event", "authn_core", "authz_core", "authz_user", "proxy", "proxy_http", "auth_openidc")
_PATIENCE = 20.0


def apache() -> str | None:
    """Return Apache's program, None where it or its OpenID Connect module is not here."""
    return shutil.which("apache2") if (_MODULES / "mod_auth_openidc.so").exists() else None


def traefik() -> str | None:
    """Return Traefik's program, from beside this Python or from `PATH`; None where it is not here."""
    return shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def https_issuer(folder: Path, redirect_uris: list[str]) -> Iterator[tuple[FakeIssuer, Path]]:
    """Serve an issuer by https, for Apache takes no other; yield it, and the file with its certificate."""
    certificate, key = _certificate(folder)
    port, provider = free_port(), issuer()
    provider.url = f"https://localhost:{port}"
    provider.client(CLIENT, secret=CLIENT_SECRET, redirect_uris=redirect_uris)
    config = uvicorn.Config(
        provider.app, port=port, ssl_certfile=certificate, ssl_keyfile=key, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait_for(f"{provider.url}/jwks", certificate)
        yield provider, certificate
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def apache_in_front(app: str, provider: FakeIssuer, port: int, folder: Path) -> Iterator[None]:
    """Run Apache, which keeps sessions in its memory, as it does by default."""
    program = apache()
    assert program is not None
    folder.mkdir()
    modules = "\n".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _LOADED)
    user = "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""
    (folder / "apache.conf").write_text(f"""\
{modules}
{user}
ServerName 127.0.0.1
PidFile {folder}/pid
Listen 127.0.0.1:{port}
MaxKeepAliveRequests 0
KeepAliveTimeout 60
ErrorLog {folder}/log
Mutex file:{folder} default
OIDCProviderMetadataURL {provider.url}/.well-known/openid-configuration
OIDCSSLValidateServer Off
OIDCClientID {CLIENT}
OIDCClientSecret "{CLIENT_SECRET}"
OIDCRedirectURI http://127.0.0.1:{port}/oauth2/callback
OIDCCryptoPassphrase {SECRET}
OIDCPKCEMethod S256
OIDCScope openid
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
ProxyPass / {app}/
""")
    with _running([program, "-f", str(folder / "apache.conf"), "-DFOREGROUND"], folder):
        yield


@contextmanager
def traefik_in_front(app: str, provider: FakeIssuer, certificate: Path, port: int, folder: Path) -> Iterator[None]:
    """Run Traefik, and the service that it asks about each request."""
    program, service = traefik(), free_port()
    assert program is not None
    folder.mkdir()
    (folder / "routes.yaml").write_text(f"""\
http:
  routers:
    app: {{rule: "PathPrefix(`/`)", middlewares: [auth], service: app}}
    login: {{rule: "PathPrefix(`/oauth2/`)", service: login}}
  middlewares:
    auth: {{forwardAuth: {{address: "http://127.0.0.1:{service}/oauth2/auth?redirect=1"}}}}
  services:
    app: {{loadBalancer: {{servers: [{{url: "{app}"}}]}}}}
    login: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{service}"}}]}}}}
""")
    (folder / "traefik.yaml").write_text(f"""\
entryPoints: {{web: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: {folder}/routes.yaml}}}}
""")
    serve = [*_command("serve"), "--port", str(service)]
    with (
        _running(serve, folder, _settings(provider, certificate, port) | {"OIDC_TRUSTED_PROXIES": "127.0.0.1"}),
        _running([program, f"--configFile={folder}/traefik.yaml"], folder),
    ):
        yield


@contextmanager
def our_proxy_in_front(app: str, provider: FakeIssuer, certificate: Path, port: int, folder: Path) -> Iterator[None]:
    """Run `oidc-middleware proxy`."""
    folder.mkdir()
    proxy = [*_command("proxy"), "--upstream", app, "--port", str(port)]
    with _running(proxy, folder, _settings(provider, certificate, port)):
        yield


def log_in(provider: FakeIssuer, certificate: Path, base_url: str) -> str:
    """Log somebody in through a proxy, and return the Cookie header of the browser."""
    context = ssl.create_default_context(cafile=str(certificate))
    with httpx2.Client(verify=context, trust_env=False, follow_redirects=True, timeout=_PATIENCE) as browser:
        page = _first_page(browser, f"{base_url}/orders")
        fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.text))
        answer = {name: html.unescape(value) for name, value in fields.items()}
        answer |= {"username": "jane", "decision": "allow"}
        landed = browser.post(provider.endpoint("authorize"), data=answer)
        assert (landed.status_code, landed.text) == (200, "hello"), landed.text
        port = base_url.rpartition(":")[2]
        of_proxy = [cookie for cookie in browser.cookies.jar if cookie.domain == "127.0.0.1" and port]
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in of_proxy)


def _first_page(browser: httpx2.Client, url: str) -> httpx2.Response:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            page = browser.get(url, headers={"accept": "text/html"})
        except httpx2.TransportError:
            page = None
        if page is not None and page.status_code == 200:
            return page
        assert time.monotonic() < deadline, "no login page came" if page is None else page.text
        time.sleep(0.1)


def _settings(provider: FakeIssuer, certificate: Path, port: int) -> dict[str, str]:
    return {
        "OIDC_ISSUER": provider.url,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_CLIENT_ID": CLIENT,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "OIDC_CA_FILE": str(certificate),
        "OIDC_LOGIN": "true",
        "OIDC_BASE_URL": f"http://127.0.0.1:{port}",
    }


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "oidc_middleware.cli", name, "--log-level", "warning"]


@contextmanager
def _running(command: list[str], folder: Path, settings: dict[str, str] | None = None) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | (settings or {}), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _wait_for(url: str, certificate: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    context = ssl.create_default_context(cafile=str(certificate))
    while time.monotonic() < deadline:
        try:
            httpx2.get(url, verify=context, trust_env=False)
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} does not answer")


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2099))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
