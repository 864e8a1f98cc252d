"""An issuer for each tenant: `iss` and the tenant's own claim agree, and nothing of one is good for another."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware import OIDC, Issuer, Rule, Settings
from oidc_middleware.cli.doctor import examine
from oidc_middleware.cli.explain import explain
from oidc_middleware.core.issuer_template import IssuerTemplate, parse_template
from oidc_middleware.core.keys import parse_jwks
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.issuer_fields import ALL_ALGORITHMS

from abuse.door import Door, is_503
from abuse.signing import AUDIENCE, Signer
from tenants_kit import (
    COMMON,
    HOST,
    NOBODY,
    ONE,
    TEMPLATE,
    TWO,
    Documents,
    common,
    door_of,
    issuer_of,
    refusal,
    token_of,
)

MISMATCH = "claim: iss mismatch (not one of the configured issuers)"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def other() -> Signer:
    return Signer()


# What a token must show

ACCEPTED = {"listed": ONE, "the other one": TWO}

ISS: dict[str, tuple[dict[str, Any], str]] = {
    "T-iss-case": ({"iss": issuer_of(ONE).replace("login", "LOGIN")}, MISMATCH),
    "T-iss-prefix": ({"iss": f"{HOST}.evil.com/{ONE}/v2.0"}, MISMATCH),
    "T-iss-prefix-of-path": ({"iss": issuer_of(ONE) + "/evil"}, MISMATCH),
    "T-iss-sub": ({"iss": f"{HOST}/{ONE}"}, MISMATCH),
    "T-iss-list": ({"iss": [issuer_of(ONE)]}, "claim: iss invalid"),
    "T-iss-null": ({"iss": None}, "claim: iss invalid"),
    "T-iss-http": ({"iss": issuer_of(ONE).replace("https", "http")}, MISMATCH),
    "T-iss-fullwidth": ({"iss": issuer_of(ONE).replace(".", "\u3002")}, MISMATCH),
    "T-iss-space": ({"iss": issuer_of(ONE) + " "}, MISMATCH),
    "T-iss-port": ({"iss": issuer_of(ONE).replace(HOST, HOST + ":443")}, MISMATCH),
    "T-iss-slash": ({"iss": issuer_of(ONE) + "/"}, MISMATCH),
    "T-iss-template-itself": ({"iss": TEMPLATE, "tid": "{tenantid}"}, MISMATCH),
    "T-iss-common": ({"iss": issuer_of("common"), "tid": "common"}, MISMATCH),
    "T-iss-other-tenant": ({"iss": issuer_of(NOBODY), "tid": NOBODY}, MISMATCH),
    "T-iss-capital-guid": ({"iss": issuer_of(ONE.upper()), "tid": ONE.upper()}, MISMATCH),
    "T-iss-guid-in-braces": ({"iss": issuer_of("{" + ONE + "}"), "tid": "{" + ONE + "}"}, MISMATCH),
    "T-iss-guid-without-dashes": ({"iss": issuer_of(ONE.replace("-", "")), "tid": ONE.replace("-", "")}, MISMATCH),
    "T-iss-empty-tenant": ({"iss": issuer_of(""), "tid": ""}, MISMATCH),
    "T-iss-two-segments": ({"iss": issuer_of(f"x/{ONE}"), "tid": f"x/{ONE}"}, MISMATCH),
    "T-iss-dot-segment": ({"iss": issuer_of(f"x/../{ONE}"), "tid": ONE}, MISMATCH),
    "T-iss-line-end": ({"iss": issuer_of(ONE + "\n"), "tid": ONE + "\n"}, MISMATCH),
    "T-iss-tid-of-another": ({"tid": TWO}, "claim: tid mismatch (not the tenant that iss names)"),
    "T-iss-of-another": ({"iss": issuer_of(TWO)}, "claim: tid mismatch (not the tenant that iss names)"),
    "T-iss-tid-capital": ({"tid": ONE.upper()}, "claim: tid mismatch (not the tenant that iss names)"),
    "T-iss-tid-list": ({"tid": [ONE]}, "claim: tid invalid"),
    "T-iss-tid-null": ({"tid": None}, "claim: tid missing"),
    "T-iss-tid-number": ({"tid": 7}, "claim: tid invalid"),
}

AUD: dict[str, tuple[Any, str | None]] = {
    "T-aud-empty": ("", "claim: aud mismatch"),
    "T-aud-emptylist": ([], "claim: aud mismatch"),
    "T-aud-substr": (AUDIENCE[:-1], "claim: aud mismatch"),
    "T-aud-superstr": (AUDIENCE + "2", "claim: aud mismatch"),
    "T-aud-listnested": ([[AUDIENCE]], "claim: aud invalid"),
    "T-aud-dict": ({AUDIENCE: 1}, "claim: aud invalid"),
    "T-aud-int": (1, "claim: aud invalid"),
    "T-aud-listmixed": ([AUDIENCE, 1], "claim: aud invalid"),
    "T-aud-joined": (f"x {AUDIENCE}", "claim: aud mismatch"),
    "T-aud-null-in-list": ([None], "claim: aud invalid"),
    "T-aud-other": ("client-a", "claim: aud mismatch"),
    "T-aud-multi-ok": (["x", AUDIENCE], None),
    "T-aud-is-the-issuer": (issuer_of(ONE), "claim: aud mismatch"),
}

TENANTS: dict[str, list[str]] = {"listed": [ONE, TWO], "any": ["*"]}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ISS)
@pytest.mark.parametrize("tenants", TENANTS)
async def test_iss_of_a_template(name: str, tenants: str, signer: Signer) -> None:
    claims, expected = ISS[name]
    documents = common(signer.jwks())
    door = door_of(documents, tenants=TENANTS[tenants])
    found = await refusal(door, token_of(signer, claims=claims))
    assert found == (None if (name, tenants) == ("T-iss-other-tenant", "any") else expected)
    assert set(documents.asked) <= {COMMON, f"{HOST}/common/v2.0/keys"}, "no token leads to an address"


@pytest.mark.anyio
@pytest.mark.parametrize("missing", ["iss", "tid"])
async def test_neither_iss_nor_the_tenant_may_be_missing(missing: str, signer: Signer) -> None:
    """T-iss-missing: without either nobody knows the tenant."""
    door = door_of(common(signer.jwks()))
    assert await refusal(door, token_of(signer, omit=(missing,))) == f"claim: {missing} missing"


@pytest.mark.anyio
@pytest.mark.parametrize("name", AUD)
async def test_aud_of_a_template(name: str, signer: Signer) -> None:
    audience, expected = AUD[name]
    door = door_of(common(signer.jwks()), tenants=["*"])
    assert await refusal(door, token_of(signer, claims={"aud": audience})) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("name", ACCEPTED)
async def test_tokens_of_listed_tenants_get_in(name: str, signer: Signer) -> None:
    documents = common(signer.jwks())
    door = door_of(documents)
    tenant = ACCEPTED[name]
    answer = await door.ask(token=token_of(signer, tenant))
    assert answer.seen is not None
    user = answer.seen["user"]
    assert (user.issuer, user.tenant, user.identity) == (issuer_of(tenant), tenant, f"{issuer_of(tenant)}#alice")
    assert documents.asked == {COMMON: 1, f"{HOST}/common/v2.0/keys": 1}


@pytest.mark.anyio
async def test_a_claim_of_another_name_may_hold_the_tenant(signer: Signer) -> None:
    door = door_of(common(signer.jwks()), tenant_claim="org.id")
    good = token_of(signer, claims={"org": {"id": ONE}, "tid": "whatever"})
    assert await refusal(door, good) is None
    assert await refusal(door, token_of(signer)) == "claim: org.id missing"
    wrong = token_of(signer, claims={"org": {"id": TWO}})
    assert await refusal(door, wrong) == "claim: org.id mismatch (not the tenant that iss names)"


# Keys


@pytest.mark.anyio
@pytest.mark.parametrize("tenants", TENANTS)
async def test_tenants_may_have_metadata_and_keys_of_their_own(tenants: str, signer: Signer, other: Signer) -> None:
    """Both sign under the same `kid`: a key of one is no key of the other."""
    documents = Documents()
    documents.publish(issuer_of(ONE), signer.jwks())
    documents.publish(issuer_of(TWO), other.jwks())
    door = door_of(documents, tenants=TENANTS[tenants], discovery_url=None)
    assert await refusal(door, token_of(signer, ONE)) is None
    assert await refusal(door, token_of(other, TWO)) is None
    assert str(await refusal(door, token_of(signer, TWO))).startswith("bad_signature")
    assert str(await refusal(door, token_of(other, ONE))).startswith("bad_signature")
    assert await refusal(door, token_of(signer, ONE, claims={"tid": TWO})) == ISS["T-iss-tid-of-another"][1]


@pytest.mark.anyio
async def test_metadata_of_a_tenant_must_be_its_own(signer: Signer) -> None:
    documents = Documents()
    documents.publish(issuer_of(ONE), signer.jwks(), at=f"{issuer_of(TWO)}/.well-known/openid-configuration")
    door = door_of(documents, discovery_url=None)
    assert is_503(await door.ask(token=token_of(signer, TWO)))


@pytest.mark.anyio
@pytest.mark.parametrize("said", [issuer_of(ONE), issuer_of("common"), HOST, TEMPLATE.replace("tenantid", "tenant")])
async def test_common_metadata_must_name_the_template(said: str, signer: Signer) -> None:
    documents = common(signer.jwks())
    documents.documents[COMMON]["issuer"] = said
    assert is_503(await door_of(documents).ask(token=token_of(signer)))


@pytest.mark.anyio
@pytest.mark.parametrize("tenants", TENANTS)
async def test_a_key_that_is_given_to_one_tenant_signs_for_no_other(tenants: str, signer: Signer) -> None:
    """Entra ID's document says of each key whose it is: personal accounts have keys of their own."""
    jwks = json.dumps({"keys": [signer.rsa_jwk(issuer=issuer_of(ONE)), signer.ec_jwk(issuer=TEMPLATE)]}).encode()
    door = door_of(common(jwks), tenants=TENANTS[tenants])
    assert await refusal(door, token_of(signer, ONE)) is None
    assert await refusal(door, token_of(signer, ONE, alg="ES256")) is None
    assert await refusal(door, token_of(signer, TWO, alg="ES256")) is None
    assert str(await refusal(door, token_of(signer, TWO))).startswith("unknown_key")


def test_keys_of_an_issuer_are_found_once(signer: Signer) -> None:
    document = json.dumps({"keys": [signer.rsa_jwk(issuer="a"), signer.ec_jwk(issuer="t"), signer.okp_jwk()]}).encode()
    keys = parse_jwks(document, frozenset(ALL_ALGORITHMS))
    names = {name: frozenset(name.split()) for name in ("a t", "t", "b", "c")}
    kids = {name: {key.kid for key in keys.of_issuer(known).keys} for name, known in names.items()}
    assert kids == {"a t": {"r1", "e1", "o1"}, "t": {"e1", "o1"}, "b": {"o1"}, "c": {"o1"}}
    assert keys.of_issuer(frozenset("at")) is keys
    assert keys.of_issuer(frozenset("bt")) is keys.of_issuer(frozenset("ct"))


# Caches and revocations


@pytest.mark.anyio
async def test_revocations_are_of_one_tenant(signer: Signer) -> None:
    for tenants in TENANTS.values():
        door = door_of(common(signer.jwks()), tenants=tenants)
        tokens = {tenant: token_of(signer, tenant, claims={"jti": "same", "sid": "same"}) for tenant in (ONE, TWO)}
        for token in tokens.values():
            assert (await door.ask(token=token)).status == 200
        await door.oidc.revoke.token(issuer=issuer_of(TWO), jti="same")
        await door.oidc.revoke.subject("alice", issuer=issuer_of(TWO))
        await door.oidc.revoke.session("same", issuer=issuer_of(TWO))
        assert [(await door.ask(token=token)).status for token in tokens.values()] == [200, 401]
        with pytest.raises(ValueError, match="not a configured issuer"):
            await door.oidc.revoke.subject("alice", issuer=TEMPLATE)
        with pytest.raises(ValueError, match="name one with issuer="):
            await door.oidc.revoke.subject("alice")
        await door.oidc.stop()


@pytest.mark.anyio
async def test_an_issuer_of_its_own_goes_before_the_template(signer: Signer) -> None:
    issuers = [
        Issuer(issuer=TEMPLATE, audience=AUDIENCE, tenants="*", discovery_url=COMMON),
        Issuer(issuer=issuer_of(TWO), audience="its own", jwks_uri=f"{HOST}/common/v2.0/keys"),
    ]
    door = Door(b"", transport=common(signer.jwks()), issuers=issuers)
    assert await refusal(door, token_of(signer, ONE)) is None
    assert await refusal(door, token_of(signer, TWO)) == "claim: aud mismatch"


@pytest.mark.anyio
async def test_a_flood_of_made_up_tenants_keeps_little(signer: Signer) -> None:
    documents = common(signer.jwks())
    door = door_of(documents, tenants=["*"])
    for number in range(300):
        tenant = f"00000000-0000-0000-0000-{number:012x}"
        assert (
            await refusal(door, token_of(signer, tenant, key=signer.evil))
            == "bad_signature: no key of the issuer made it"
        )
    assert sum(documents.asked.values()) < 10
    assert len(door.oidc.providers) == 1


@pytest.mark.anyio
async def test_rules_see_the_tenant(signer: Signer) -> None:
    door = door_of(common(signer.jwks()), rules=[Rule("/orders", claims={"tenant": ONE})])
    assert [(await door.ask(token=token_of(signer, tenant))).status for tenant in (ONE, TWO)] == [200, 403]


# The template


def test_a_template_is_filled_in_one_way() -> None:
    template = parse_template(TEMPLATE)
    assert template == IssuerTemplate(f"{HOST}/", "/v2.0", guid=True)
    assert template is not None
    assert template.tenant_of(template.fill(ONE)) == ONE
    assert parse_template(HOST) is None
    assert parse_template(f"{HOST}/{{tenant}}") == IssuerTemplate(f"{HOST}/", "", guid=False)


@given(st.text("abAB01-._/{}%\n\u00df", max_size=8), st.text("/v2.0x", max_size=6))
def test_what_a_template_accepts_is_what_it_fills(tenant: str, tail: str) -> None:
    template = IssuerTemplate(f"{HOST}/", "/v2.0", guid=False)
    issuer = f"{HOST}/{tenant}{tail}"
    found = template.tenant_of(issuer)
    assert found is None or (template.fill(found) == issuer and not set(found) & set("/{}%\n\u00df"))
    assert template.tenant_of(f"{HOST}/{tenant}/v2.0") in {None, tenant}


@pytest.mark.parametrize("template", [TEMPLATE, f"{HOST}/{{tenant}}", f"{HOST}/a/{{tenant}}/b/c"])
def test_good_templates(template: str) -> None:
    assert Issuer(issuer=template, audience="a", tenants=["*"]).template is not None


@pytest.mark.parametrize(
    "template",
    [
        "https://{tenant}.example/v2.0",
        "https://{tenant}/v2.0",
        f"{HOST}/x{{tenantid}}",
        f"{HOST}/{{tenantid}}x",
        f"{HOST}/{{tenantid}}/{{tenantid}}",
        f"{HOST}/{{tenantid}}/{{tenant}}",
        f"{HOST}/{{realm}}",
        f"{HOST}/{{}}",
        f"{HOST}/{{tenantid",
        f"{HOST}/{{tenantid}}?x=1",
        f"{HOST}/{{tenantid}}/../x",
    ],
)
def test_bad_templates(template: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Issuer(issuer=template, audience="a", tenants=["*"])
    assert (refused.value.field, bool(refused.value.cure)) == ("issuer", True)


@pytest.mark.parametrize(
    ("keywords", "field", "problem"),
    [
        ({"tenants": []}, "tenants", "is missing"),
        ({"tenants": ["*", ONE]}, "tenants", "beside others"),
        ({"tenants": [ONE.upper()]}, "tenants", "is no tenant"),
        ({"tenants": ["common"]}, "tenants", "is no tenant"),
        ({"tenants": ["contoso.onmicrosoft.com"]}, "tenants", "is no tenant"),
        ({"issuer": HOST}, "tenants", "is no template"),
        ({"client_id": "c", "client_secret": "s"}, "introspection", "is a template"),
    ],
)
def test_tenants_that_cannot_work(keywords: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        Settings(**{"issuer": TEMPLATE, "audience": "a", "tenants": [ONE], **keywords})
    assert (refused.value.field, bool(refused.value.cure)) == (field, True)


def test_two_templates_for_the_same_issuers_are_one_too_many() -> None:
    issuers = [
        Issuer(issuer=TEMPLATE, audience="a", tenants=[ONE]),
        Issuer(issuer=TEMPLATE.replace("tenantid", "tenant"), audience="b", tenants=["x"]),
    ]
    with pytest.raises(ConfigError, match="is the same as") as refused:
        Settings(issuers=issuers)
    assert refused.value.field == "issuers[1].issuer"


def test_a_tenant_stands_in_one_place() -> None:
    issuers = [Issuer(issuer=TEMPLATE, audience="a", tenants=[ONE]), Issuer(issuer=issuer_of(ONE), audience="b")]
    with pytest.raises(ConfigError, match="is the same as"):
        Settings(issuers=issuers)


def test_plain_http_needs_permission_for_templates_too(caplog: pytest.LogCaptureFixture) -> None:
    keywords: dict[str, Any] = {"audience": "a", "tenants": ["*"], "issuer": TEMPLATE.replace("https", "http")}
    with pytest.raises(ConfigError, match="is not encrypted"):
        Settings(**keywords)
    with caplog.at_level(logging.WARNING):
        assert Settings(**keywords, allow_http=True).trusted
    assert Settings(audience="a", tenants="*", issuer="http://127.0.0.1:1/{tenant}").trusted


def test_templates_come_from_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_ISSUER", TEMPLATE)
    monkeypatch.setenv("OIDC_AUDIENCE", "a")
    monkeypatch.setenv("OIDC_TENANTS", f"{ONE}, {TWO}")
    oidc = OIDC(Settings())
    assert set(oidc.issuers) == {issuer_of(ONE), issuer_of(TWO)}
    assert set(oidc.providers) == {issuer_of(ONE), issuer_of(TWO)}


# What others make of it


def test_the_api_names_the_issuers_that_can_be_listed() -> None:
    """RFC 9728 §2: `authorization_servers` are issuers, and a template is none."""
    keywords: dict[str, Any] = {"issuer": TEMPLATE, "audience": "a", "resource": "https://api.example/x"}
    listed = Settings(tenants=[ONE, TWO], **keywords).resource_metadata
    anybody = Settings(tenants="*", **keywords).resource_metadata
    assert listed is not None
    assert anybody is not None
    assert listed.document()["authorization_servers"] == [issuer_of(ONE), issuer_of(TWO)]
    assert "authorization_servers" not in anybody.document()


@pytest.mark.anyio
async def test_the_issuer_of_an_accepted_token_can_be_looked_at(signer: Signer) -> None:
    door = door_of(common(signer.jwks()), tenants=["*"])
    assert await refusal(door, token_of(signer)) is None
    found = door.oidc.issuers.peek(issuer_of(ONE))
    assert found is not None
    assert (found.expected.issuer, found.expected.tenant) == (issuer_of(ONE), ("tid", ONE))
    assert door.oidc.issuers.peek(TEMPLATE) is None


@pytest.mark.anyio
@pytest.mark.parametrize("tenants", TENANTS)
@pytest.mark.parametrize("name", [*ISS, "good"])
async def test_explain_says_what_the_door_says(
    name: str, tenants: str, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = ISS[name][0] if name in ISS else {}
    token = token_of(signer, claims=claims)
    expected = await refusal(door_of(common(signer.jwks()), tenants=TENANTS[tenants]), token)
    code = await explain(token.encode(), door_of(common(signer.jwks()), tenants=TENANTS[tenants]).oidc)
    said = capsys.readouterr().out
    assert code == (0 if expected is None else 1)
    assert ("accepted: " if expected is None else f"refused: {expected} (the client sees 401") in said
    assert "please report this as a bug" not in said


@pytest.mark.anyio
@pytest.mark.parametrize("own", [False, True], ids=["common", "own"])
@pytest.mark.parametrize("tenants", TENANTS)
async def test_doctor_looks_at_what_there_is(
    tenants: str, own: bool, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = common(signer.jwks())
    documents.publish(issuer_of(ONE), signer.jwks())
    documents.publish(issuer_of(TWO), signer.jwks())
    door = door_of(documents, tenants=TENANTS[tenants], **({"discovery_url": None} if own else {}))
    assert await examine(door.oidc) == 0
    said = capsys.readouterr().out
    keys = 0 if own and tenants == "any" else 2 if own else 1
    assert said.count("ok      discovery") == keys
    assert (f'"{TEMPLATE}": each tenant is asked' in said) is (own and tenants == "any")
