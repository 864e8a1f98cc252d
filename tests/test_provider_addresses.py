"""Where requests to an issuer may go: URLs that can be read in one way, and addresses by how far inside they lie."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.addresses import Zone, check_scheme, is_loopback, parse_url, presumed_zone, zone_of


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("8.8.8.8", Zone.PUBLIC),
        ("172.15.255.255", Zone.PUBLIC),
        ("172.32.0.0", Zone.PUBLIC),
        ("100.63.255.255", Zone.PUBLIC),
        ("2606:4700::1111", Zone.PUBLIC),
        ("64:ff9b::808:808", Zone.PUBLIC),
        ("10.0.0.1", Zone.PRIVATE),
        ("172.16.0.1", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE),
        ("192.0.0.8", Zone.PRIVATE),
        ("198.19.255.255", Zone.PRIVATE),
        pytest.param("100.64.0.1", Zone.PRIVATE, id="J-ssrf-ip-carrier-grade-nat"),
        pytest.param("fd00::1", Zone.PRIVATE, id="J-ssrf-ip-unique-local"),
        ("2001:db8::1", Zone.PRIVATE),
        ("64:ff9b:1::a00:1", Zone.PRIVATE),
        ("127.0.0.1", Zone.LOOPBACK),
        ("127.255.0.1", Zone.LOOPBACK),
        ("::1", Zone.LOOPBACK),
        ("::ffff:127.0.0.1", Zone.LOOPBACK),
        ("2002:7f00:1::", Zone.LOOPBACK),
        ("64:ff9b::7f00:1", Zone.LOOPBACK),
        ("::127.0.0.1", Zone.LOOPBACK),
        ("::ffff:10.0.0.1", Zone.PRIVATE),
        pytest.param("169.254.169.254", Zone.FORBIDDEN, id="J-ssrf-ip-link-local"),
        pytest.param("::ffff:169.254.169.254", Zone.FORBIDDEN, id="J-ssrf-ip-mapped"),
        ("2002:a9fe:a9fe::", Zone.FORBIDDEN),
        ("64:ff9b::a9fe:a9fe", Zone.FORBIDDEN),
        ("2001:0:a9fe:a9fe::1", Zone.FORBIDDEN),
        ("0.0.0.0", Zone.FORBIDDEN),
        ("::", Zone.FORBIDDEN),
        ("224.0.0.1", Zone.FORBIDDEN),
        ("255.255.255.255", Zone.FORBIDDEN),
        ("ff02::1", Zone.FORBIDDEN),
        ("fe80::1", Zone.FORBIDDEN),
        ("fe80::1%eth0", Zone.FORBIDDEN),
        ("fec0::1", Zone.FORBIDDEN),
        ("fd00:ec2::254", Zone.FORBIDDEN),
        ("fd20:ce::254", Zone.FORBIDDEN),
        ("fd00:c1::a9fe:a9fe", Zone.FORBIDDEN),
        ("100.100.100.200", Zone.FORBIDDEN),
        ("168.63.129.16", Zone.FORBIDDEN),
        ("192.0.0.192", Zone.FORBIDDEN),
    ],
)
def test_an_address_lies_in_its_zone(address: str, zone: Zone) -> None:
    assert zone_of(address) is zone


@given(st.ip_addresses())
def test_every_address_has_a_zone_and_public_ones_are_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if zone_of(str(address)) is Zone.PUBLIC and address.version == 4:
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))


@given(st.ip_addresses(v=4))
def test_an_address_hidden_in_ipv6_lies_no_further_outside(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for hidden in ((0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)):
        assert zone_of(str(ipaddress.IPv6Address(hidden))) is zone_of(str(address))


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("localhost", Zone.LOOPBACK),
        ("127.0.0.1", Zone.LOOPBACK),
        ("10.1.2.3", Zone.PRIVATE),
        ("issuer.example", Zone.PUBLIC),
        ("localhost.example", Zone.PUBLIC),
    ],
)
def test_what_shows_without_a_resolver(host: str, zone: Zone) -> None:
    assert presumed_zone(host) is zone
    assert is_loopback(host) is (zone is Zone.LOOPBACK)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://issuer.example", ("https", "issuer.example", 443, "", "")),
        ("https://Issuer.Example:8443/a/b%20c?d=e", ("https", "issuer.example", 8443, "/a/b%20c", "?d=e")),
        ("http://[::1]:9/", ("http", "::1", 9, "/", "")),
        ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/", "")),
        ("https://10.0.0.1", ("https", "10.0.0.1", 443, "", "")),
        ("https://a_b.example", ("https", "a_b.example", 443, "", "")),
    ],
)
def test_a_url_is_taken_apart(url: str, parts: tuple[str, str, int, str, str]) -> None:
    assert parse_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("file:///etc/passwd", id="J-scheme-file"),
        pytest.param("ftp://issuer.example/jwks", id="J-scheme-ftp"),
        pytest.param("data:application/json,{}", id="J-scheme-data"),
        pytest.param("gopher://issuer.example/", id="J-scheme-gopher"),
        pytest.param("jar:https://issuer.example/", id="J-scheme-jar"),
        pytest.param("//issuer.example/", id="J-scheme-none"),
        pytest.param("https://0x7f.1/", id="J-ssrf-ip-hex"),
        pytest.param("https://2130706433/", id="J-ssrf-ip-decimal"),
        pytest.param("https://127.1/", id="J-ssrf-ip-short"),
        pytest.param("https://0177.0.0.1/", id="J-ssrf-ip-octal"),
        pytest.param("https://127.0.0.0x1/", id="J-ssrf-ip-hex-at-the-end"),
        pytest.param("https://localhost./", id="J-ssrf-ip-localhost-dot"),
        "https://127.0.0.1./",
        "https://256.0.0.1/",
        "https://a..b/",
        "https://user@issuer.example/",
        "https://issuer.example@evil.example/",
        "https://issuer.example\\@evil.example/",
        "https://issuer.example/#fragment",
        "https://issuer.example/a b",
        "https://issuer.example/\n",
        "https://issuer.example/%zz",
        "https://ïssuer.example/",
        "https://[::1/",
        "https://[:::1]/",
        "https://[1.2.3.4]/",
        "https://[fe80::1%25eth0]/",
        "https://issuer.example:0/",
        "https://issuer.example:65536/",
        "https://issuer.example:/",
        "https://",
        "",
        "https://issuer.example/" + "a" * 2048,
        None,
        1,
        ["https://issuer.example/"],
    ],
)
def test_what_can_be_read_in_two_ways_is_no_url(url: object) -> None:
    with pytest.raises(ValueError, match=r"plain form$|not a string$|address and is none$|port that does not exist$"):
        parse_url(url)


@given(st.text() | st.from_regex(r"https?://[a-z0-9.:\[\]@%]{0,30}(/.*)?", fullmatch=True))
def test_any_text_is_a_url_or_a_value_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert url.scheme in {"http", "https"}
    assert 0 < url.port < 65536


@pytest.mark.parametrize(
    ("url", "allow_http", "passes"),
    [
        ("https://issuer.example", False, True),
        ("http://localhost:8080", False, True),
        ("http://127.0.0.1:8080", False, True),
        ("http://[::1]:8080", False, True),
        pytest.param("http://issuer.example", False, False, id="J-scheme-http"),
        ("http://10.0.0.1", False, False),
        ("http://localhost.example", False, False),
        ("http://issuer.example", True, True),
    ],
)
def test_plain_http_is_for_loopback_unless_allowed(url: str, allow_http: bool, passes: bool) -> None:
    if passes:
        check_scheme(parse_url(url), allow_http=allow_http)
    else:
        with pytest.raises(ValueError, match="must be https"):
            check_scheme(parse_url(url), allow_http=allow_http)
