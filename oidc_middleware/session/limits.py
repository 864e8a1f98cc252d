"""How long a session lives: unless it is used, in any case, and as long as the issuer lets it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from oidc_middleware.core.grant import Grant
from oidc_middleware.session.record import Record

TOUCHES: Final = 10
"""A session that is used is written so many times an idle life at most: it ends up to a tenth of it too early."""

LOOK_SECONDS: Final = 5.0
"""After how long the store is looked at again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Spans in seconds: without use, in all, and how long before its end an access token is renewed."""

    idle: float
    absolute: float
    refresh_ahead: float

    def deadline(self, began: float, now: float, grant: Grant) -> float:
        """Return when a session that began then ends in any case, as far as is known now.

        `refresh_expires_in` is how Keycloak tells when its own session ends; 0 there means never.
        """
        ceiling = now + grant.refresh_expires_in if grant.refresh_expires_in else math.inf
        return min(began + self.absolute, ceiling)

    def ends_at(self, deadline: float, now: float) -> float:
        """Return when a session that is used now ends unless it is used again."""
        return min(now + self.idle, deadline)

    def touched(self, record: Record, now: float) -> Record:
        """Return a session as it is after its use: the same one when that need not be written."""
        last_use = record.ends_at - self.idle
        if record.ends_at >= record.deadline or now - last_use < self.idle / TOUCHES:
            return record
        return msgspec.structs.replace(record, version=record.version + 1, ends_at=self.ends_at(record.deadline, now))

    def is_due(self, record: Record, now: float) -> bool:
        """Tell whether the access token is to be renewed ahead of its end."""
        return record.refresh_token is not None and now >= record.renew_at

    def renew_at(self, grant: Grant, now: float) -> float:
        """Return when the access token of a grant is to be renewed: not before it has lived for half its life."""
        if grant.expires_in is None:
            return math.inf
        return now + max(grant.expires_in - self.refresh_ahead, grant.expires_in / 2)

    def looked_at_again(self, record: Record, now: float) -> float:
        """Return when a session has to be looked at again."""
        until = min(now + LOOK_SECONDS, record.ends_at)
        if record.refresh_token is not None:
            until = min(until, record.renew_at if now < record.renew_at else record.access_ends)
        return until


def access_ends(grant: Grant, now: float) -> float:
    """Return when the access token of a grant ends (Unix seconds), infinity where the issuer did not say."""
    return math.inf if grant.expires_in is None else now + grant.expires_in


def is_over(record: Record, now: float) -> bool:
    """Tell whether the access token of a session is over."""
    return now >= record.access_ends
