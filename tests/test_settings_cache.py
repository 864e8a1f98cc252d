"""Where the cache is, what seals it, and what is said of places that are not safe."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from oidc_middleware import Settings
from oidc_middleware.errors import ConfigError

SECRET, OTHER = "s" * 32, "o" * 40
BASE: dict[str, Any] = {"issuer": "https://login.example.com", "audience": "a"}
SHARED = {**BASE, "secret": SECRET}
REDIS = [
    "redis://localhost:6379/0",
    "redis://[::1]",
    "rediss://:pw@cache.internal:6380/1",
    "unix:///run/redis.sock?db=1",
    "rediss+sentinel://:pw@one.internal:26379,two.internal/mymaster/0?sentinel_password=pw",
    "redis+cluster://[::1]:7000,localhost:7001",
]


def refusal(**keywords: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Settings(**{**SHARED, **keywords})
    return caught.value


@pytest.mark.parametrize("cache", ["memory://", *REDIS])
def test_what_can_be_opened(cache: str) -> None:
    settings = Settings(**SHARED, cache=cache)
    assert settings.cache == cache
    assert type(settings.secret[0]) is SecretStr


def test_a_file_for_the_workers_of_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for cache in (f"sqlite:///{tmp_path}/cache.sqlite", "sqlite:///cache.sqlite"):
        assert Settings(**SHARED, cache=cache).cache == cache
    assert list(tmp_path.iterdir()) == [], "nothing is opened before it is used"


@pytest.mark.parametrize(
    ("cache", "problem"),
    [
        ("memcached://hunter2", "is not a cache"),
        ("redis", "is not a cache"),
        ("memory://x", "is not a cache"),
        ("sqlite://cache.sqlite", "is not a cache"),
        ("sqlite:///", "names no file"),
        ("sqlite:////tmp/", "names no file"),
        ("sqlite:////no/such/folder/cache.sqlite", "which is no directory"),
        ("redis://", "needs a host"),
        ("redis://host/zero", "number of a database"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs' of a Redis URL is not one of"),
        ("redis://host:hunter2:x@y:z", "is not a URL"),
        ("redis://user:hunter2", "is not a URL"),
        ("unix://", "needs the path"),
        (" redis://host", "white space"),
        ("", "empty"),
        (7, "must be text"),
    ],
)
def test_what_cannot(cache: object, problem: str) -> None:
    error = refusal(cache=cache)
    assert error.field == "cache"
    assert problem in error.problem
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("cache", ["redis://localhost", "sqlite:///cache.sqlite"])
def test_a_shared_cache_without_secret_is_refused(cache: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**BASE, cache=cache)
    assert caught.value.field == "secret"
    assert "`oidc-middleware secret` prints a new one" in caught.value.cure
    assert "OIDC_SECRET" in caught.value.cure
    assert "every node" in caught.value.cure.lower()


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("short", "has 5 bytes, and 32 are the least"),
        (b"brief", "has 5 bytes, and 32 are the least"),
        ([SECRET, "hunter2"], "secret 2 has 7 bytes"),
        ([], "is empty"),
        ([7], "must be text or bytes"),
        ("\udcff" * 32, "not UTF-8"),
        (7, "must be a list"),
    ],
)
def test_k_secret_short(secret: object, problem: str) -> None:
    """K-secret-short: also where only one of several is."""
    error = refusal(secret=secret)
    assert error.field == "secret"
    assert problem in error.problem
    assert "`oidc-middleware secret` prints a new one" in error.cure or "list of secrets" in error.cure
    assert "hunter2" not in str(error)


def test_secrets_are_not_shown() -> None:
    """O-exc: neither the secrets nor the password in the URL."""
    settings = Settings(**BASE, cache="rediss://user:hunter2@cache.internal/0", secret=[SECRET, OTHER.encode()])
    sentinels = "redis+sentinel://localhost/name?sentinel_password=hunter2&sentinel_username=node"
    assert "sentinel_password=***&sentinel_username=node" in repr(Settings(**SHARED, cache=sentinels))
    for text in (repr(settings), str(settings), repr(settings.model_dump())):
        assert not any(hidden in text for hidden in ("hunter2", SECRET, OTHER))
    assert "rediss://***@cache.internal/0" in repr(settings)
    assert [secret.get_secret_value() for secret in settings.secret] == [SECRET, OTHER.encode()]


def test_secrets_come_from_variables_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OIDC_CACHE", "redis://localhost")
    monkeypatch.setenv("OIDC_SECRET", f"{SECRET}, {OTHER}")
    assert len(Settings(**BASE).secret) == 2
    monkeypatch.delenv("OIDC_SECRET")
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv("OIDC_SECRET_FILE", str(tmp_path / "secret"))
    settings = Settings(**BASE)
    assert [secret.get_secret_value() for secret in settings.secret] == [SECRET]
    assert settings.model_copy(update={"namespace": "other"}).secret == settings.secret


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "a*", "x" * 65, 7, "ö"])
def test_a_namespace_is_a_plain_word(namespace: object) -> None:
    assert refusal(namespace=namespace).field == "namespace"


@pytest.mark.parametrize("share", ["auto", "always", "never"])
def test_share_tokens(share: Any) -> None:
    assert Settings(**SHARED, share_tokens=share).share_tokens == share
    assert refusal(share_tokens="sometimes").field == "share_tokens"


@pytest.mark.parametrize(
    ("cache", "warnings"),
    [
        ("redis://cache.internal:6379/0", ["cache.internal is reached without TLS and a password"]),
        ("redis://:pw@cache.internal", ["cache.internal is reached without TLS"]),
        ("rediss://10.0.0.7", ["10.0.0.7 is reached without a password"]),
        ("rediss://:pw@cache.internal", []),
        ("rediss://cache.internal?ssl_certfile=a.pem&ssl_keyfile=b.pem", []),
        ("redis://localhost", []),
        ("redis://127.0.0.2", []),
        ("redis://[::1]:7000", []),
        ("unix:///run/redis.sock", []),
        ("memory://", []),
    ],
)
def test_k_redis_plain(cache: str, warnings: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """K-redis-plain: a loud warning at start, for whoever is in that network."""
    with caplog.at_level(logging.WARNING):
        Settings(**SHARED, cache=cache)
    assert len(caplog.records) == len(warnings)
    for record, warning in zip(caplog.records, warnings, strict=True):
        assert warning in record.getMessage()
        assert ":pw@" not in record.getMessage()


def test_redis_without_redis_py() -> None:
    code = (
        "import sys; sys.modules['redis'] = None; from oidc_middleware import Settings\n"
        f"Settings(issuer='https://a.example', audience='a', cache='redis://localhost', secret={SECRET!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert result.stderr.endswith(
        "cache: needs redis-py, which is not installed. pip install 'oidc-middleware[redis]'\n"
    )
