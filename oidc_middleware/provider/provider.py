"""One trusted issuer: its metadata and its keys, shared with no other."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock
from oidc_middleware.core.addresses import Zone, parse_url
from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.core.metadata import Metadata, parse_metadata, well_known_urls
from oidc_middleware.errors import ProviderInvalid
from oidc_middleware.provider.discovery import Discovered, fetch_metadata
from oidc_middleware.provider.document import Document, Source
from oidc_middleware.provider.freshness import Life
from oidc_middleware.provider.http import Answer, ErrorStatus, HTTPDoor
from oidc_middleware.provider.keys import log_faults, lost_trust, read_keys
from oidc_middleware.provider.stored import Store

Endpoint = Literal[
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "introspection_endpoint",
    "revocation_endpoint",
    "end_session_endpoint",
]
"""What metadata may name besides the keys."""


class Place(NamedTuple):
    """Where an endpoint lies, and how far inside its host may lie."""

    url: str
    reach: Zone


_log = logging.getLogger("oidc_middleware.provider")

# What stands for the key set of an issuer whose metadata name none.
_NO_KEYS = b'{"keys": [], "because": "its metadata name no jwks_uri"}'

METADATA_LIFE = Life(shortest=300, longest=86_400, default=3_600)
KEYS_LIFE = Life(shortest=300, longest=43_200, default=900)
COOL_DOWN = 30.0
"""Seconds between two looks for a `kid` that no key has."""


class Provider:
    """What is known of one issuer. Keys, metadata, cool-downs and back-off are its own.

    `discovery_url` replaces the well-known places, `jwks_uri` makes discovery of the keys unnecessary, `endpoints` are
    used instead of those that the metadata name. All were written by the operator, so their hosts may lie in the
    private network. `algorithms` bounds which keys are of use. Without `needs_keys` an issuer may have none: then its
    JWTs are refused, and its other tokens need none.
    `on_keys_removed` is called when a key is no longer published, so that whatever it has signed can be forgotten.
    `issuer` may be the template of many tenants' issuers, who then have their metadata and keys in common.

    Works from one event loop after another, and without `start`, which only makes it load and refresh unasked.

    Raises:
        ValueError: `issuer` or one of the URLs is none.
    """

    def __init__(
        self,
        issuer: str,
        *,
        discovery_url: str | None = None,
        jwks_uri: str | None = None,
        endpoints: Mapping[Endpoint, str] = MappingProxyType({}),
        algorithms: frozenset[str],
        needs_keys: bool = True,
        http: HTTPDoor,
        caches: Caches,
        clock: Clock,
        random: Random,
        on_keys_removed: Callable[[], None],
    ) -> None:
        self.issuer = issuer
        self._jwks_uri = jwks_uri
        self._endpoints = dict(endpoints)
        self._algorithms = algorithms
        self._needs_keys = needs_keys
        self.http: HTTPDoor = http
        """The way to it."""
        self._monotonic = clock.monotonic
        self._on_keys_removed = on_keys_removed
        self._discovery_urls = _discovery_urls(issuer, discovery_url, jwks_uri)
        # What stands before the placeholder of a template has the host.
        named = (*self._discovery_urls, *([] if jwks_uri is None else [jwks_uri]), *endpoints.values())
        configured = (issuer.partition("{")[0], *named)
        self._own_hosts = frozenset(parse_url(url).host for url in configured)
        self._next_look = -math.inf
        self._looks = 0
        self._strange_endpoints: dict[Endpoint, str] = {}
        # What came from another address is not shared, though it be the same issuer.
        self.source: bytes = hashlib.sha256("\n".join((issuer, discovery_url or "", jwks_uri or "")).encode()).digest()
        self._discovered = Document(
            Source("metadata", issuer, Store(caches.metadata, self.source), self._fetch_metadata, self._read_metadata),
            METADATA_LIFE,
            clock,
            random,
            self._metadata_replaced,
        )
        self._keys = Document(
            Source("keys", issuer, Store(caches.jwk, self.source), self._fetch_keys, self._read_keys),
            KEYS_LIFE,
            clock,
            random,
            self._keys_replaced,
        )
        self.peek_keys: Callable[[], KeySet | None] = self._keys.peek
        """Return the keys in memory that may be used without asking the issuer; None: `find_keys` has to."""

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...] = ()) -> tuple[Key, ...]:
        """Return the keys that a header with this `kid` and `alg` may mean, for whom `peek_keys` has not enough.

        `tried` are keys that did not verify the token. Waits for the issuer where there are no keys, and once per
        cool-down where none but those fits: it may have a new one, be it under an old name.

        Raises:
            ProviderError: there are no keys that may be used, and the issuer gives none.
            BackendUnavailable: the service stops.
        """
        fetches = self._keys.fetches
        found = (await self._keys.get()).find(kid, alg)
        # What was fetched meanwhile is as new as it gets.
        if any(key not in tried for key in found) or self._keys.fetches > fetches or not self._may_look():
            return found
        await self._keys.renew()
        found = (await self._keys.get()).find(kid, alg)
        if self._keys.fetches == fetches and all(key in tried for key in found):
            # That was what another node had fetched: newer than ours, and perhaps older than the key.
            await self._keys.renew()
            found = (await self._keys.get()).find(kid, alg)
        return found

    async def load(self) -> None:
        """Wait until there are keys that may be used.

        Raises:
            ProviderError: the issuer gives none.
            BackendUnavailable: the service stops.
        """
        await self._keys.get()

    async def metadata(self) -> Metadata:
        """Return what the issuer says about itself.

        Raises:
            ProviderError: it is not known, and the issuer does not say it.
            BackendUnavailable: the service stops.
        """
        return (await self._discovered.get()).metadata

    def peek_metadata(self) -> Metadata | None:
        """Return what the issuer says about itself, as far as that is in memory, be it old.

        Where there is nothing, or nothing new enough, it is asked in the background, for those who look again.
        """
        if self._discovered.peek() is None:
            self._discovered.refresh_soon()
        usable = self._discovered.usable
        return None if usable is None else usable.metadata

    async def post(
        self,
        endpoint: Endpoint,
        form: Iterable[tuple[str, str]],
        headers: tuple[tuple[str, str], ...] = (),
    ) -> bytes | None:
        """Send a form to an endpoint, and return the JSON document that is the answer.

        Return None where there is no such endpoint; nothing is sent then.

        Raises:
            ProviderError: the issuer does not answer, or not as it must.
            BackendUnavailable: the service stops.
        """
        place = await self.locate(endpoint)
        return None if place is None else (await self.http.post(*place, form, headers)).body

    async def locate(self, endpoint: Endpoint) -> Place | None:
        """Return where an endpoint is asked, by us; None where there is none.

        Raises:
            ProviderError, BackendUnavailable: as `metadata` does.
        """
        url = self._endpoints.get(endpoint)
        if url is not None:
            return Place(url, Zone.LOOPBACK)
        discovered = await self._discovered.get()
        url = getattr(discovered.metadata, endpoint)
        if url is None:
            return None
        if parse_url(url).host not in self._own_hosts and self._strange_endpoints.get(endpoint) != url:
            self._strange_endpoints[endpoint] = url
            _log.warning("%s of %s lies on another host, as it says itself: %s", endpoint, self.issuer, url)
        return Place(url, self._reach(url, discovered))

    async def endpoint(self, name: Endpoint) -> str | None:
        """Return where an endpoint lies, as the operator or else the metadata say; None where neither does.

        Raises:
            ProviderError, BackendUnavailable: as `metadata` does.
        """
        found: str | None = self._endpoints.get(name) or getattr(await self.metadata(), name)
        return found

    @property
    def ready(self) -> bool:
        """Whether there are keys in memory that may be used, or the issuer has none."""
        keys = self.peek_keys()
        return keys is not None and (len(keys) > 0 or keys.document == _NO_KEYS)

    def stats(self) -> dict[str, Any]:
        """Return counters and ages (seconds) as plain JSON types."""
        keys = self._keys.peek()
        return {
            "ready": bool(keys),
            "keys": 0 if keys is None else len(keys),
            "keys_age": self._keys.age,
            "keys_fetches": self._keys.fetches,
            "keys_failures": self._keys.failures,
            "unknown_kid_looks": self._looks,
            "metadata_age": self._discovered.age,
            "metadata_fetches": self._discovered.fetches,
            "metadata_failures": self._discovered.failures,
        }

    def start(self) -> None:
        """Begin to load and refresh unasked, on the running event loop."""
        self._keys.keep_fresh()

    async def stop(self) -> None:
        """End what runs in the background, and the fetches under way. It can be used, and started, again."""
        await self._keys.stop()
        await self._discovered.stop()

    def _may_look(self) -> bool:
        """Tell whether a `kid` that nobody knows is worth a look, and count it.

        One look in a cool-down is all that is remembered of unknown `kid`s: a list of them would have to be bounded,
        and whoever fills it could keep a real one out.
        """
        if self._keys.renewing:
            return True
        now = self._monotonic()
        if now < self._next_look or not self._keys.may_renew:
            return False
        self._next_look = now + COOL_DOWN
        self._looks += 1
        return True

    async def _fetch_metadata(self) -> Answer:
        return await fetch_metadata(self.http, self._discovery_urls)

    def _read_metadata(self, document: bytes, zone: Zone) -> Discovered:
        metadata = parse_metadata(document, self.issuer, allow_http=self.http.allow_http, needs_keys=self._needs_keys)
        return Discovered(metadata, zone)

    def _metadata_replaced(self, old: Discovered | None, new: Discovered) -> None:
        if old is not None and old.metadata != new.metadata:
            _log.warning("metadata of %s changed: %s", self.issuer, new.metadata)
        jwks_uri = new.metadata.jwks_uri
        if old is not None and old.metadata.jwks_uri == jwks_uri:
            return
        if jwks_uri is not None and parse_url(jwks_uri).host not in self._own_hosts:
            _log.warning("keys of %s lie on another host, as it says itself: %s", self.issuer, jwks_uri)
        if old is not None:
            self._keys.expire()

    async def _fetch_keys(self) -> Answer:
        if self._jwks_uri is not None:
            return await self.http.get(self._jwks_uri, Zone.LOOPBACK)
        # Keys have a back-off of their own; two in a row would make the way back longer than either.
        discovered = await self._discovered.get(at_once=True)
        url = discovered.metadata.jwks_uri
        if url is None:
            return Answer(_NO_KEYS, None, discovered.zone)
        try:
            return await self.http.get(url, self._reach(url, discovered))
        except (ErrorStatus, ProviderInvalid):
            self._discovered.expire()  # the keys may have moved
            raise

    def _reach(self, url: str, discovered: Discovered) -> Zone:
        """Return how far inside a host that the issuer named may lie: its own may lie where the operator put it."""
        return Zone.LOOPBACK if parse_url(url).host in self._own_hosts else discovered.zone

    def _read_keys(self, document: bytes, _: Zone) -> KeySet:
        return read_keys(document, self._algorithms, self._keys.usable)

    def _keys_replaced(self, old: KeySet | None, new: KeySet) -> None:
        if new.document != _NO_KEYS:
            log_faults(self.issuer, old, new)
        elif old is None or old.document != _NO_KEYS:
            _log.info("%s publishes no keys: its JWTs are refused", self.issuer)
        if old is not None and lost_trust(old, new):
            _log.info("keys of %s: one is no longer published", self.issuer)
            self._on_keys_removed()


def _discovery_urls(issuer: str, discovery_url: str | None, jwks_uri: str | None) -> tuple[str, ...]:
    if discovery_url is not None:
        return (discovery_url,)
    if jwks_uri is not None and "{" in issuer:
        return (jwks_uri,)  # a template has no document of its own, and what the operator named is all there is
    return well_known_urls(issuer)
