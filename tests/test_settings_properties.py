"""Whatever comes, from keywords or as text, gives Settings or a ConfigError, never another exception."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware import Settings
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import urls
from oidc_middleware.settings.problem import Problem

BASE: dict[str, Any] = {"issuer": "https://login.example.com", "audience": "a"}
FIELDS = st.sampled_from(list(Settings.model_fields))
TEXT = st.text() | st.text(st.sampled_from('[]{},:"/*.%@#?=-+ \n\\0123456789abhtpsx{}$é\udcff'), max_size=40)
HINTED = st.one_of(
    st.builds("https://{}".format, TEXT),
    st.builds('["{}"]'.format, TEXT),
    st.builds('[{{"path": "/{}", "issuer": "https://a"}}]'.format, TEXT),
    st.builds("/{}".format, TEXT),
    st.builds("{}://{}".format, st.sampled_from(["redis", "rediss", "unix", "sqlite", "redis+cluster", "a"]), TEXT),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | HINTED | st.binary() | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["path", "methods", "scopes", "claims", "issuer", "audience", "algorithms"])
            | TEXT
            | st.integers(),
            inner,
            max_size=3,
        )
        | st.tuples(inner)
    ),
    max_leaves=6,
)


def settings_or_refusal(**keywords: Any) -> None:
    try:
        found: Settings | ConfigError = Settings(**keywords)
    except ConfigError as error:
        found = error
    if isinstance(found, ConfigError):
        assert all((found.field, found.problem, found.cure))
    else:
        assert all(issuer.audience and issuer.algorithms for issuer in found.trusted)
        assert 0 <= found.leeway <= 300
        assert repr(found)


@given(FIELDS, VALUES)
def test_any_keyword(field: str, value: object) -> None:
    with mock.patch.dict(os.environ, clear=True):
        settings_or_refusal(**{**BASE, field: value})


@given(st.dictionaries(FIELDS.map(lambda field: f"OIDC_{field.upper()}"), TEXT | HINTED, max_size=4))
def test_any_variables(variables: dict[str, str]) -> None:
    with mock.patch.object(os, "environ", variables):
        settings_or_refusal(**BASE)
        settings_or_refusal()


@given(st.text(), TEXT)
def test_any_name(name: str, value: str) -> None:
    with mock.patch.object(os, "environ", {f"OIDC_{name}": value}):
        settings_or_refusal(**BASE)
    if name not in {"self", *BASE}:
        with mock.patch.object(os, "environ", {}):
            settings_or_refusal(**BASE, **{name: value})


@given(st.binary(max_size=200))
def test_any_env_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.env"
    path.write_bytes(content)
    with mock.patch.object(os, "environ", {}):
        settings_or_refusal(**BASE, env_file=path)


@given(st.builds("http{}://{}".format, st.sampled_from(["s", ""]), TEXT))
def test_an_accepted_url_has_one_reading(url: str) -> None:
    try:
        accepted = urls.issuer(url)
    except Problem:
        return
    assert accepted == url
    assert accepted.isascii()
    assert not set(accepted) & set(' \\#?"<>{}|^`\t\n')
    assert "@" not in accepted.split("/")[2]
