"""Checks of presets and of issuers with many tenants: what is set can work, and something reads it."""

from __future__ import annotations

from oidc_middleware.core.addresses import parse_url
from oidc_middleware.core.issuer_template import IssuerTemplate
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.issuer import ANY_TENANT, Issuer
from oidc_middleware.settings.presets import preset_of
from oidc_middleware.settings.problem import shown


def check_presets(trusted: tuple[Issuer, ...]) -> None:
    """Check that no setting makes a preset's issuer one whose tokens cannot be accepted.

    Raises:
        ConfigError: one does.
    """
    for before, issuer in _placed(trusted):
        preset = preset_of(issuer.preset)
        for wrong in preset.impossible:
            value = getattr(issuer, wrong.setting)
            if wrong.unless is not None and getattr(issuer, wrong.unless) is not None:
                continue
            if value == wrong.value or (isinstance(value, tuple) and wrong.value in value):
                problem = f"{wrong.problem} (preset {issuer.preset})"
                raise ConfigError(before + wrong.setting, problem, wrong.cure)
        if preset.org_issuer is not None and issuer.template is None and parse_url(issuer.issuer).path in {"", "/"}:
            problem, cure = preset.org_issuer
            raise ConfigError(before + "issuer", problem, cure)


def check_tenants(trusted: tuple[Issuer, ...]) -> None:
    """Check that a template, and nothing else, says whose tokens are accepted.

    Raises:
        ConfigError: something is missing, or nothing would read it; or two issuers are the same.

    Source: RFC 8725 §3.8.
    """
    seen: dict[str, str] = {}
    for before, issuer in _placed(trusted):
        template = issuer.template
        if template is not None:
            _check_template(before, issuer, template)
        elif issuer.tenants:
            cure = "Leave it out, or write {tenantid} where the tenant stands in issuer."
            raise ConfigError(before + "tenants", "is set, and issuer is no template", cure)
        for name in _names(issuer, template):
            if name in seen:
                problem = f"{shown(issuer.issuer)} is the same as {shown(seen[name])}"
                raise ConfigError(before + "issuer", problem, "Leave one of the two out.")
            seen[name] = issuer.issuer


def _names(issuer: Issuer, template: IssuerTemplate | None) -> list[str]:
    """Return what stands for this issuer: the two placeholders are told apart by nothing that a token says."""
    return list(issuer.identifiers) if template is None else [template.fill("{}"), *issuer.identifiers]


def _check_template(before: str, issuer: Issuer, template: IssuerTemplate) -> None:
    if not issuer.tenants:
        cure = f"List the tenants. tenants={ANY_TENANT!r} accepts every one that the issuer has: strangers too."
        raise ConfigError(before + "tenants", "is missing, and issuer is a template", cure)
    if ANY_TENANT in issuer.tenants:
        if len(issuer.tenants) > 1:
            raise ConfigError(before + "tenants", "holds * beside others", "Write either.")
    else:
        for tenant in issuer.tenants:
            if not template.is_tenant(tenant):
                problem = f"{shown(tenant)} is no tenant that can stand in iss"
                cure = "Write its id, a GUID in small letters." if template.guid else "Write one segment of a path."
                raise ConfigError(before + "tenants", problem, cure)
    if issuer.introspects:
        cure = "Write introspection='never', or list the tenants as issuers of their own."
        raise ConfigError(before + "introspection", "is on, and issuer is a template", cure)


def _placed(trusted: tuple[Issuer, ...]) -> list[tuple[str, Issuer]]:
    """Return each issuer, after what stands before the names of its settings in messages."""
    return [(f"issuers[{place}]." if len(trusted) > 1 else "", issuer) for place, issuer in enumerate(trusted)]
