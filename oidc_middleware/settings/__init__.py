"""The configuration: read from keywords, variables and files, checked once, frozen.

```
model      Settings                              what there is, and in which order it is read
issuer     Issuer                                one of several issuers
fields · issuer_fields                           each setting: type, reader, check, description
keywords                                         the same for type checkers
checks · urls · entries · cache                  one value: text, number, URL, list of rules, cache and secrets
together                                         one setting against another
sources · words                                  variables and files · their text as values
report · unknown · problem                       what is said when something is wrong
```

Loading this package loads pydantic, which takes longer than everything else together: load it when it is used.
"""

from __future__ import annotations

from oidc_middleware.settings.issuer import Issuer
from oidc_middleware.settings.keywords import IssuerKeywords, SettingsKeywords
from oidc_middleware.settings.model import Settings

__all__ = ["Issuer", "IssuerKeywords", "Settings", "SettingsKeywords"]
