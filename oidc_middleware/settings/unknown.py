"""What to say to a name that is no setting."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.problem import shown

_SHOWN = 60
_SWITCHES = ("verify", "insecure", "skip", "disable", "unsafe", "tls", "ssl", "cert")
_NO_SWITCH = "No check can be switched off. For a private CA set {ca_file} to its certificates in PEM form."


def unknown_name(name: str, known: Collection[str]) -> ConfigError:
    """Return the error for `name`, with what was probably meant among the `known` names."""
    field = name if name.isascii() and name.isidentifier() and len(name) <= _SHOWN else shown(name)
    spelled = {other.lower(): other for other in known}
    near = [spelled[found] for found in difflib.get_close_matches(name[:_SHOWN].lower(), spelled, n=2, cutoff=0.7)]
    ca_file = next((other for other in known if other.lower().endswith("ca_file")), None)
    if ca_file and any(word in name.lower() for word in _SWITCHES):
        cure = _NO_SWITCH.format(ca_file=ca_file)
    elif near:
        cure = f"Did you mean {' or '.join(near)}?"
    else:
        cure = f"Settings are {', '.join(known)}."
    return ConfigError(field, "there is no such setting", cure)
