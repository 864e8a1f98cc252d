"""What a Redis URL names, and what it must not ask for."""

from __future__ import annotations

import pytest

from oidc_middleware.cache import RedisBackend
from oidc_middleware.cache.redis.urls import Address, target_of

from redis_kit import CLOCK

LOGIN = "us%40er:p%2Fw@"


def test_sentinels() -> None:
    target = target_of(f"redis+sentinel://{LOGIN}one:26380,[::1]:1,one:26380,two/my%20master/3")
    assert target.form == "sentinel"
    assert target.seeds == (Address("one", 26380), Address("::1", 1), Address("two", 26379))
    assert target.service == "my master"
    assert target.server_url(Address("10.0.0.1", 6379)) == f"redis://{LOGIN}10.0.0.1:6379/3"
    assert target.sentinel_url(Address("::1", 1)) == "redis://[::1]:1"


def test_sentinels_with_credentials_of_their_own_and_tls() -> None:
    target = target_of(
        "rediss+sentinel://:pw@one/name?sentinel_username=a%40b&sentinel_password=c%2Fd&ssl_check_hostname=false"
    )
    assert target.server_url(Address("h", 1)) == "rediss://:pw@h:1/?ssl_check_hostname=false"
    assert target.sentinel_url(Address("h", 1)) == "rediss://a%40b:c%2Fd@h:1?ssl_check_hostname=false"
    for secret in ("pw", "c/d", "c%2Fd"):
        assert secret not in repr(target)


def test_a_cluster() -> None:
    target = target_of(f"rediss+cluster://{LOGIN}one:7000,[fe80::1]:7001,two?ssl_ca_certs=/a%20b/ca.pem")
    assert target.form == "cluster"
    assert target.seeds == (Address("one", 7000), Address("fe80::1", 7001), Address("two", 6379))
    assert target.server_url(target.seeds[1]) == f"rediss://{LOGIN}[fe80::1]:7001?ssl_ca_certs=%2Fa+b%2Fca.pem"


@pytest.mark.parametrize("url", ["redis://localhost:6379/1?db=2", "rediss://:pw@h", "unix:///run/redis.sock?db=1"])
def test_one_server(url: str) -> None:
    target = target_of(url)
    assert (target.form, target.url, target.seeds) == ("server", url, ())


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://", "needs a host"),
        ("redis+sentinel://one:26379", "names a service"),
        ("redis+sentinel://one/", "names a service"),
        ("redis+sentinel://one/0/name", "nothing after its service"),
        ("redis+sentinel://one/name/0/1", "names a service"),
        ("redis+sentinel:///name", "needs a host"),
        ("redis+sentinel://one,,two/name", "needs a host"),
        ("redis+sentinel://one:x/name", "needs a host"),
        ("redis+sentinel://one:0/name", "needs a host"),
        ("redis+sentinel://one:70000/name", "needs a host"),
        ("redis+sentinel://one/name?db=1", "option 'db'"),
        ("redis+sentinel://one/name?socket_timeout=9", "option 'socket_timeout'"),
        ("redis+sentinel://one/name?sentinel_username=me", "needs 'sentinel_password'"),
        ("redis+sentinel://:pa#ss@one/name", "needs a host|fragment"),
        ("redis+cluster://", "needs a host"),
        ("redis+cluster://one/0", "without a number"),
        ("redis+cluster://one?db=0", "option 'db'"),
        ("redis+cluster://one?ssl_cert_reqs=none", "option 'ssl_cert_reqs'"),
        ("redis+cluster://one#two", "fragment"),
        ("redis+cluster://[::1", "needs a host"),
        ("redis+tls://one", "scheme 'redis\\+tls'"),
        ("sentinel://one/name", "scheme 'sentinel'"),
    ],
)
def test_what_cannot_work_is_refused_and_says_no_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RedisBackend(url, clock=CLOCK)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  whatever it says
        RedisBackend(url.replace("://", "://me:hu/nter2@", 1), clock=CLOCK)
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://one", "redis+cluster://one", "redis+sentinel://one/name", "unix:///s"])
def test_an_authority_without_tls_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="needs a URL that begins with rediss"):
        RedisBackend(url, clock=CLOCK, ca_file="ca.pem")
