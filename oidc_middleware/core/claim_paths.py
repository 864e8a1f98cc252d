"""Finding a claim by its name, or by a dotted path into nested claims."""

from __future__ import annotations

from collections.abc import Mapping


def find(claims: object, path: str) -> object:
    """Return the claim at `path`, or `None`.

    On every level the whole rest of the path is tried as a name first (Auth0's `https://example.com/roles`), then its
    longest beginning that is the name of an object (Keycloak's clients have dots in their names). There is no way back
    from a name that was found.
    """
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        found: object = claims[path]
        return found
    end = path.rfind(".")
    while end > 0:
        if isinstance(claims.get(path[:end]), Mapping):
            return find(claims[path[:end]], path[end + 1 :])
        end = path.rfind(".", 0, end)
    return None
