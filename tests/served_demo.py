"""The API of the demo, as each server loads it: configured by the environment, its issuer in another process."""

from __future__ import annotations

import os

from oidc_middleware.cache import new_secret
from oidc_middleware.cli.demo.app import build
from oidc_middleware.cli.demo.login import Login
from oidc_middleware.cli.demo.place import Place
from oidc_middleware.testing import FakeIssuer

_ISSUER = os.environ["OIDC_ISSUER"]
_LOGIN = Login(FakeIssuer(_ISSUER), "http://127.0.0.1")
app = build(_ISSUER, os.environ["OIDC_AUDIENCE"], _LOGIN, Place("memory://", new_secret()))
