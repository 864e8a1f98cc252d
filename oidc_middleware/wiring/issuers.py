"""The issuers of one service: those of its settings, opened at once, and those that are opened when they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Any

from oidc_middleware.auth.issuers import Finder, Issuers, Wildcard
from oidc_middleware.auth.resolving import ResolvedIssuers
from oidc_middleware.auth.trusted import TrustedIssuer
from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock
from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.core.foreign import Foreign
from oidc_middleware.core.issuer_template import PLACES, IssuerTemplate
from oidc_middleware.core.verify import Expected
from oidc_middleware.provider import HTTPDoor, Provider
from oidc_middleware.provider.introspection import Introspector
from oidc_middleware.provider.issuer_keys import IssuerKeys
from oidc_middleware.settings import Issuer, Settings
from oidc_middleware.settings.issuer import ANY_TENANT
from oidc_middleware.settings.presets import preset_of
from oidc_middleware.wiring.introspecting import configured_endpoints, open_introspection, open_introspector
from oidc_middleware.wiring.resolving import could_be_issuer, described


@dataclass(frozen=True, slots=True)
class OpenIssuer:
    """One issuer with all that it needs."""

    trusted: TrustedIssuer
    provider: Provider
    introspector: Introspector | None

    @property
    def ready(self) -> bool:
        """Whether its keys are in memory."""
        return self.provider.ready

    async def load(self) -> None:
        """Wait until its keys are in memory.

        Raises:
            ProviderError, BackendUnavailable: they do not come.
        """
        await self.provider.load()

    def start(self) -> None:
        """Begin to refresh its keys unasked, on the running event loop."""
        self.provider.start()

    async def stop(self) -> None:
        """End what runs in the background. It can be started again."""
        if self.trusted.introspection is not None:
            await self.trusted.introspection.stop()
        await self.provider.stop()

    def stats(self) -> dict[str, Any]:
        """Return counters, as plain JSON types."""
        stats = self.provider.stats()
        if self.introspector is not None:
            stats |= {"introspections": self.introspector.calls, "introspection_failures": self.introspector.failures}
        return stats


class ServiceIssuers:
    """All issuers of one service. `on_keys_removed` is called when what one has signed must be verified anew."""

    def __init__(
        self,
        settings: Settings,
        caches: Caches,
        clock: Clock,
        random: Random,
        *,
        on_keys_removed: Callable[[], None],
        transport: Any,
    ) -> None:
        self._settings = settings
        self._caches = caches
        self._clock = clock
        self._random = random
        self._on_keys_removed = on_keys_removed
        self._transport = transport
        self._door = self._new_door(None)  # one for all: each would hold the system's certificates in memory
        self._open: dict[str, OpenIssuer] = {}
        self._resolved: dict[str, ResolvedIssuers[Issuer]] = {}
        fixed: dict[str, TrustedIssuer] = {}
        finders: list[Finder] = []
        for issuer in settings.trusted:
            if issuer.template is None:
                fixed[issuer.issuer] = self._add(issuer).trusted
            else:
                found, finder = self._tenants(issuer, issuer.template)
                fixed |= found
                finders += [finder] if finder is not None else []
        if settings.issuer_resolver is not None:
            resolve = partial(described, settings)
            finders.append(self._resolve("issuer_resolver", resolve, could_be_issuer, self._opened))
        self.trusted: Issuers = Issuers(MappingProxyType(fixed), finders, self._foreign())
        self.providers: Mapping[str, Provider] = MappingProxyType(
            {name: opened.provider for name, opened in self._open.items()}
        )

    @property
    def ready(self) -> bool:
        """Whether the keys of every issuer that the settings name are in memory."""
        return all(opened.ready for opened in self._open.values())

    def start(self) -> None:
        """Begin to load and to refresh metadata and keys in the background."""
        for part in self._parts():
            part.start()

    async def stop(self) -> None:
        """End what runs in the background. It can be started again."""
        await asyncio.gather(*(part.stop() for part in self._parts()))

    def stats(self) -> dict[str, Any]:
        """Return counters, as plain JSON types."""
        stats: dict[str, Any] = {"issuers": {name: opened.stats() for name, opened in self._open.items()}}
        if self._resolved:
            stats["resolved_issuers"] = {name: resolved.stats() for name, resolved in self._resolved.items()}
        return stats

    def _parts(self) -> Iterator[OpenIssuer | ResolvedIssuers[Issuer]]:
        yield from self._open.values()
        yield from self._resolved.values()

    def _add(self, issuer: Issuer, template: IssuerTemplate | None = None) -> OpenIssuer:
        opened = self._open[issuer.issuer] = self._opened(issuer, template)
        return opened

    def _tenants(self, issuer: Issuer, template: IssuerTemplate) -> tuple[dict[str, TrustedIssuer], Finder | None]:
        """Return the tenants that the settings list, or what finds those that a token may be of."""
        is_any = ANY_TENANT in issuer.tenants
        if issuer.common_metadata is not None or issuer.jwks_uri is not None:
            shared = self._add(issuer)
            if is_any:
                return {}, Wildcard(template.tenant_of, partial(_of_tenant, shared, issuer, template))
            return {
                template.fill(tenant): _of_tenant(shared, issuer, template, tenant) for tenant in issuer.tenants
            }, None
        if is_any:
            open_ = partial(self._opened, template=template)
            return {}, self._resolve(issuer.issuer, partial(_tenant, issuer, template), _is_of(template), open_)
        opened = [self._add(issuer.of_tenant(tenant), template) for tenant in issuer.tenants]
        return {each.trusted.expected.issuer: each.trusted for each in opened}, None

    def _resolve(
        self,
        name: str,
        resolve: Callable[[str], Awaitable[Issuer | None]],
        could_be: Callable[[str], bool],
        open_: Callable[[Issuer], OpenIssuer],
    ) -> ResolvedIssuers[Issuer]:
        resolved = self._resolved[name] = ResolvedIssuers(resolve, open_, could_be, self._on_keys_removed, self._clock)
        return resolved

    def _foreign(self) -> Iterator[Foreign]:
        for issuer in self._settings.trusted:
            yield from preset_of(issuer.preset).foreign

    # One issuer

    def _new_door(self, ca_file: str | None) -> HTTPDoor:
        return HTTPDoor(ca_file=ca_file, allow_http=self._settings.allow_http, transport=self._transport)

    def _opened(self, issuer: Issuer, template: IssuerTemplate | None = None) -> OpenIssuer:
        """Open an issuer; `template` is the one that it was made from, as the issuer of one of its tenants."""
        provider = Provider(
            issuer.issuer,
            discovery_url=issuer.common_metadata,
            jwks_uri=issuer.jwks_uri,
            endpoints=configured_endpoints(issuer),
            algorithms=frozenset(issuer.algorithms),
            needs_keys=not issuer.introspects,
            http=self._door if issuer.ca_file is None else self._new_door(issuer.ca_file),
            caches=self._caches,
            clock=self._clock,
            random=self._random,
            on_keys_removed=self._on_keys_removed,
        )
        introspector = open_introspector(issuer, provider, self._clock)
        introspection = (
            None
            if introspector is None
            else open_introspection(issuer, provider, introspector, self._caches, self._clock)
        )
        keys = IssuerKeys(provider, frozenset({issuer.issuer}), any_template=True)
        trusted = TrustedIssuer(self._expected(issuer), keys, provider.source, introspection, self._mapping(issuer))
        opened = OpenIssuer(trusted, provider, introspector)
        tenant = None if template is None else template.tenant_of(issuer.issuer)
        if template is None or tenant is None:
            return opened
        return replace(opened, trusted=_of_tenant(opened, issuer, template, tenant))

    def _expected(self, issuer: Issuer) -> Expected:
        preset = preset_of(issuer.preset)
        return Expected(
            issuer=issuer.issuer,
            audiences=frozenset(issuer.audience),
            audience_claim=issuer.audience_claim,
            algorithms=frozenset(issuer.algorithms),
            token_type=issuer.token_type,
            client_ids=frozenset({issuer.client_id} if issuer.client_id else ()),
            leeway=self._settings.leeway,
            max_token_life=self._settings.max_token_life,
            waived=preset.waived,
            foreign=preset.foreign,
        )

    def _mapping(self, issuer: Issuer) -> ClaimsMapping:
        return ClaimsMapping(
            scopes=issuer.scope_claims,
            roles=issuer.role_claims,
            groups=issuer.group_claims,
            tenant=issuer.tenant_path,
            name=issuer.name_claims,
            expand=self._settings.expand_scopes,
        )


def _of_tenant(opened: OpenIssuer, issuer: Issuer, template: IssuerTemplate, tenant: str) -> TrustedIssuer:
    """Return a tenant's issuer: `iss` and the claim of the tenant have to agree, and only its keys are good for it."""
    trusted = opened.trusted
    name, claim = template.fill(tenant), issuer.tenant_path
    assert claim is not None  # noqa: S101  templates always have one
    names = frozenset({name, *(template.fill(place) for place in PLACES)})
    return replace(
        trusted,
        expected=replace(trusted.expected, issuer=name, tenant=(claim, tenant)),
        keys=IssuerKeys(opened.provider, names),
    )


async def _tenant(issuer: Issuer, template: IssuerTemplate, name: str) -> Issuer | None:
    tenant = template.tenant_of(name)
    return None if tenant is None else issuer.of_tenant(tenant)


def _is_of(template: IssuerTemplate) -> Callable[[str], bool]:
    return lambda name: template.tenant_of(name) is not None
