"""The page for people who come from another login proxy: nothing of theirs is left out, all of ours is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oidc_middleware import Settings

PAGE = (Path(__file__).parent.parent / "docs" / "migration.md").read_text()

# Every flag of oauth2-proxy 7.15.3, from its source.
OAUTH2_PROXY = """
acr-values allow-query-semicolons allowed-group allowed-role api-route approval-prompt auth-logging
auth-logging-format auth-request-response-mode authenticated-emails-file azure-graph-group-field azure-tenant
backend-logout-url banner basic-auth-password bearer-token-login-fallback bitbucket-repository bitbucket-team
client-id client-secret client-secret-file code-challenge-method config config-test cookie-csrf-expire
cookie-csrf-per-request cookie-csrf-per-request-limit cookie-csrf-samesite cookie-domain cookie-expire cookie-httponly
cookie-name cookie-path cookie-refresh cookie-samesite cookie-secret cookie-secret-file cookie-secure
custom-sign-in-logo custom-templates-dir disable-keep-alives display-htpasswd-form email-domain encode-state
entra-id-allowed-tenant entra-id-federated-token-auth errors-to-info-log exclude-logging-path extra-jwt-issuers
flush-interval footer force-code-challenge-method force-https force-json-errors gcp-healthchecks github-org
github-repo github-team github-token github-user gitlab-group gitlab-project google-admin-api-user-scope
google-admin-email google-group google-service-account-json google-target-principal
google-use-application-default-credentials google-use-organization-id htpasswd-file htpasswd-user-group http-address
https-address insecure-oidc-allow-unverified-email insecure-oidc-skip-issuer-verification insecure-oidc-skip-nonce
jwt-key jwt-key-file keycloak-group logging-compress logging-filename logging-local-time logging-max-age
logging-max-backups logging-max-size login-url metrics-address metrics-secure-address metrics-tls-cert-file
metrics-tls-key-file oidc-audience-claim oidc-email-claim oidc-enabled-signing-alg oidc-extra-audience
oidc-groups-claim oidc-issuer-url oidc-jwks-url oidc-public-key-file pass-access-token pass-authorization-header
pass-basic-auth pass-host-header pass-user-headers ping-path ping-user-agent prefer-email-to-user profile-url prompt
provider provider-ca-file provider-display-name proxy-prefix proxy-websockets pubjwk-url ready-path
real-client-ip-header redeem-url redirect-url redis-ca-path redis-cluster-connection-urls
redis-connection-idle-timeout redis-connection-url redis-insecure-skip-tls-verify redis-password
redis-sentinel-connection-urls redis-sentinel-master-name redis-sentinel-password redis-use-cluster redis-use-sentinel
redis-username relative-redirect-url request-id-header request-logging request-logging-format resource reverse-proxy
scope session-cookie-minimal session-store-type set-authorization-header set-basic-auth set-xauthrequest
show-debug-on-error signature-key silence-ping-logging skip-auth-preflight skip-auth-regex skip-auth-route
skip-auth-strip-headers skip-claims-from-profile-url skip-jwt-bearer-tokens skip-oidc-discovery skip-provider-button
ssl-insecure-skip-verify ssl-upstream-insecure-skip-verify standard-logging standard-logging-format tls-cert-file
tls-cipher-suite tls-key-file tls-min-version trusted-ip trusted-proxy-ip upstream upstream-timeout
use-system-trust-store user-id-claim validate-url version whitelist-domain
"""
# Every field of the configuration of traefikoidc 0.8.25, those of `redis` at the end; of two groups, the group alone.
TRAEFIKOIDC = """
allowOpaqueTokens allowPrivateIPAddresses allowedRolesAndGroups allowedUserDomains allowedUsers audience
backchannelLogoutURL caCertPEM caCertPath callbackURL clientID clientSecret cookieDomain cookiePrefix
disableReplayDetection dynamicClientRegistration enableBackchannelLogout enableFrontchannelLogout enablePKCE
excludedURLs forceHTTPS frontchannelLogoutURL groupClaimName headers insecureSkipVerify logLevel logoutURL
minimalHeaders oidcEndSessionURL overrideScopes postLogoutRedirectURI providerURL rateLimit refreshGracePeriodSeconds
requireTokenIntrospection revocationURL roleClaimName scopes securityHeaders sessionEncryptionKey sessionMaxAge
strictAudienceValidation stripAuthCookies userIdentifierClaim address cacheMode circuitBreakerThreshold
circuitBreakerTimeout connectTimeout db enableCircuitBreaker enableHealthCheck enableTLS enabled healthCheckInterval
hybridL1MemoryMB hybridL1Size keyPrefix password poolSize readTimeout tlsSkipVerify writeTimeout
"""


def told(heading: str) -> list[tuple[str, str, str]]:
    """Return the rows of the tables of a product: what it is called there, here, and the remark."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.*?) ?\|$", section, re.MULTILINE)
    return [row for row in rows if row[0] != heading]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("oauth2-proxy", [f"--{name}" for name in OAUTH2_PROXY.split()]),
        ("traefikoidc", TRAEFIKOIDC.split()),
    ],
)
def test_every_setting_of_theirs_is_told_of_once(heading: str, names: list[str]) -> None:
    there = [name for row in told(heading) for name in re.findall(r"`([^`]+)`", row[0].partition(" (")[0])]
    assert sorted(there) == sorted(names)


@pytest.mark.parametrize("heading", ["oauth2-proxy", "traefikoidc"])
def test_what_takes_its_place_is_a_setting(heading: str) -> None:
    for there, here, why in told(heading):
        assert here == "–" or set(re.findall(r"`([^`]+)`", here)) <= set(Settings.model_fields), there
        assert here != "–" or why, there


def test_variables_that_are_named_are_those_of_settings() -> None:
    variables = {name.removesuffix("_FILE") for name in re.findall(r"\bOIDC_[A-Z_]+", PAGE)}
    assert variables <= {f"OIDC_{name.upper()}" for name in Settings.model_fields}
