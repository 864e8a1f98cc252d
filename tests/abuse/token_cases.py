"""The `token/*` abuse cases: a name, a token, and the exact refusal (None: it is accepted).

Expected is the error's class, and for a claim its name and reason: `ClaimError exp expired`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from abuse.signing import AUDIENCE, ISSUER, NOW, Signer, b64, good_claims

ES256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Case:
    id: str
    token: Callable[[Signer], str]
    expected: str | None
    jwks: Callable[[Signer], list[dict[str, Any]]] | None = None


def case(name: str, expected: str | None, **changes: Any) -> Case:
    return Case(name, lambda signer: signer.token(**changes), expected)


def header(name: str, expected: str | None, **fields: Any) -> Case:
    return case(name, expected, header=fields)


def claim(name: str, expected: str | None, **fields: Any) -> Case:
    return case(name, expected, claims=fields)


def raw_claims(name: str, expected: str, text: str) -> Case:
    """A good token whose payload ends in `text`, as it stands: JSON that `json.dumps` would not write."""
    start = json.dumps(good_claims())[:-1]
    return case(name, expected, claims=f"{start}, {text}}}".encode())


def number(name: str, expected: str, member: str, literal: str) -> Case:
    fields = {key: value for key, value in good_claims().items() if key != member}
    return case(name, expected, claims=(json.dumps(fields)[:-1] + f', "{member}": {literal}}}').encode())


def spelled(name: str, expected: str, respell: Callable[[str], str], alg: str = "RS256") -> Case:
    return Case(name, lambda signer: respell(signer.token(alg=alg)), expected)


def signature(name: str, expected: str | None, change: Callable[[bytes], bytes], alg: str = "ES256") -> Case:
    def token(signer: Signer) -> str:
        signed, _, last = signer.token(alg=alg).rpartition(".")
        return f"{signed}.{b64(change(base64.urlsafe_b64decode(last + '==')))}"

    return Case(name, token, expected)


def hs_confusion(name: str, secret: Callable[[Signer], bytes]) -> Case:
    return Case(name, lambda s: s.token(alg="HS256", key=secret(s)), "AlgorithmNotAllowed")


def keys(name: str, expected: str | None, jwks: Callable[[Signer], list[dict[str, Any]]]) -> Case:
    return Case(name, lambda s: s.token(), expected, jwks)


def _spare_bits(token: str) -> str:
    """Set one of the bits of the last character that encode nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def _inside(text: str) -> Callable[[str], str]:
    return lambda token: token[:-20] + text + token[-20:]


def _standard_alphabet(token: str) -> str:
    signed, _, last = token.rpartition(".")
    assert len(last) > 1
    return f"{signed}.+/{last[2:]}"


def _other_s(signature: bytes) -> bytes:
    r, s = signature[:32], int.from_bytes(signature[32:], "big")
    return r + (ES256_ORDER - s).to_bytes(32, "big")


def _pem(signer: Signer) -> bytes:
    return signer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _der(signer: Signer) -> bytes:
    return signer.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _embedded(signer: Signer, *, kid: bool) -> str:
    attacker = signer.rsa_jwk(signer.evil, kid=None)
    return signer.token(header={"jwk": attacker}, omit_header=() if kid else ("kid",), key=signer.evil)


def _rfc7797(signer: Signer) -> str:
    head = b64(json.dumps({"alg": "RS256", "kid": "r1", "typ": "at+jwt", "b64": False, "crit": ["b64"]}).encode())
    payload = json.dumps(good_claims())
    return f"{head}.{payload}.{b64(signer.sign('RS256', f'{head}.{payload}'.encode()))}"


def _json_serialisation(signer: Signer) -> str:
    protected, payload, last = signer.token().split(".")
    return json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": last}]})


def _deep(count: int) -> bytes:
    return b'{"a":' + b"[" * count + b"]" * count + b"}"


CONTROL = [
    case("T-ok-RS256", None),
    case("T-ok-ES256", None, alg="ES256"),
    case("T-ok-EdDSA", None, alg="EdDSA"),
]

ALGORITHM = [
    *(
        header(f"T-alg-{name}", "AlgorithmNotAllowed", alg=value)
        for name, value in {
            "none": "none",
            "None": "None",
            "NONE": "NONE",
            "nOnE": "nOnE",
            "empty": "",
            "dict": {"a": 1},
            "int": 1,
            "list": ["RS256"],
            "null": None,
            "true": True,
            "lower": "rs256",
            "space": "RS256 ",
            "unknown": "RS1",
            "es256k": "ES256K",
        }.items()
    ),
    case("T-alg-absent", "AlgorithmNotAllowed", omit_header=("alg",)),
    spelled("T-alg-none-unsigned", "Malformed", lambda token: token.rpartition(".")[0]),
    hs_confusion("T-hs-conf-pem", _pem),
    hs_confusion("T-hs-conf-pem-strip", lambda s: _pem(s).rstrip(b"\n")),
    hs_confusion("T-hs-conf-der", _der),
    hs_confusion("T-hs-conf-jwk-json", lambda s: json.dumps(s.rsa_jwk()).encode()),
    hs_confusion("T-hs-empty-key", lambda _: b""),
    case("T-ps-on-rs-key", "UnknownKey", alg="PS256"),
    header("T-es-on-rs-key", "UnknownKey", alg="ES256", kid="r1"),
    header("T-ed25519-on-rs-key", "UnknownKey", alg="Ed25519", kid="r1"),
    Case("T-ed25519-key-says-eddsa", lambda s: s.token(alg="EdDSA", header={"alg": "Ed25519"}), "UnknownKey"),
    Case(
        "T-ok-Ed25519",
        lambda s: s.token(alg="EdDSA", header={"alg": "Ed25519"}),
        None,
        lambda s: [s.okp_jwk() | {"alg": "Ed25519"}],
    ),
]

HEADER = [
    Case("T-jwk-embedded", lambda s: _embedded(s, kid=True), "Malformed"),
    Case("T-jwk-embedded-nokid", lambda s: _embedded(s, kid=False), "Malformed"),
    header("T-jku", "Malformed", kid="evil", jku="http://127.0.0.1:9/jwks"),
    header("T-x5u", "Malformed", kid="evil", x5u="http://127.0.0.1:9/x"),
    header("T-x5c", "UnknownKey", kid="evil", x5c=["MIIB"]),
    header("T-zip-def", "Malformed", zip="DEF"),
    header("T-cty-jwt", "Malformed", cty="JWT"),
]

KID = [
    header("T-kid-trav", "UnknownKey", kid="../../../../dev/null"),
    header("T-kid-crlf", "UnknownKey", kid="r1\r\nX: y"),
    header("T-kid-upper", "UnknownKey", kid="R1"),
    header("T-kid-space", "UnknownKey", kid=" r1"),
    header("T-kid-unknown", "UnknownKey", kid="zzz"),
    header("T-kid-list", "Malformed", kid=["r1"]),
    header("T-kid-dict", "Malformed", kid={"$ne": ""}),
    header("T-kid-null", "Malformed", kid=None),
    header("T-kid-int", "Malformed", kid=1),
    header("T-kid-long", "Malformed", kid="k" * 257),
    header("T-kid-longest", "UnknownKey", kid="k" * 256),
    case("T-kid-absent", None, omit_header=("kid",)),
]

CRIT = [
    header("T-crit-unknown", "Malformed", crit=["exp2"], exp2=1),
    header("T-crit-empty", "Malformed", crit=[]),
    header("T-crit-str", "Malformed", crit="exp"),
    header("T-crit-null", "Malformed", crit=None),
    header("T-crit-absent-name", "Malformed", crit=["b64"]),
    header("T-b64-false-crit", "Malformed", b64=False, crit=["b64"]),
    header("T-b64-true", "Malformed", b64=True),
    Case("T-b64-false-rawpayload", _rfc7797, "Malformed"),
]

TYPE = [
    header("T-typ-idtoken", "ClaimError typ mismatch", typ="JWT"),
    case("T-typ-absent", "ClaimError typ missing", omit_header=("typ",)),
    header("T-typ-logout", "ClaimError typ mismatch", typ="logout+jwt"),
    header("T-typ-dpop", "ClaimError typ mismatch", typ="dpop+jwt"),
    header("T-typ-appat", None, typ="application/at+jwt"),
    header("T-typ-case", None, typ="AT+JWT"),
    header("T-typ-int", "ClaimError typ invalid", typ=1),
    header("T-typ-null", "ClaimError typ invalid", typ=None),
    header("T-typ-prefix", "ClaimError typ mismatch", typ="at+jwt2"),
]

JSON = [
    case("T-dup-alg", "Malformed", header=b'{"alg":"none","alg":"RS256","kid":"r1","typ":"at+jwt"}'),
    case("T-dup-alg-escaped", "Malformed", header=b'{"\\u0061lg":"none","alg":"RS256","kid":"r1","typ":"at+jwt"}'),
    case("T-hdr-array", "Malformed", header=b'["RS256"]'),
    case("T-hdr-empty", "Malformed", header=b""),
    case("T-payload-null", "Malformed", claims=b"null"),
    case("T-payload-array", "Malformed", claims=b"[]"),
    case("T-payload-string", "Malformed", claims=b'"x"'),
    case("T-payload-empty", "Malformed", claims=b""),
    case("T-payload-bom", "Malformed", claims=b"\xef\xbb\xbf" + json.dumps(good_claims()).encode()),
    case("T-payload-utf16", "Malformed", claims=json.dumps(good_claims()).encode("utf-16")),
    case("T-payload-badutf8", "Malformed", claims=json.dumps(good_claims()).encode()[:-1] + b',"x":"\xff"}'),
    case("T-payload-surrogate", "Malformed", claims=json.dumps(good_claims()).encode()[:-1] + b',"x":"\\ud800"}'),
    case("T-payload-trailing", "Malformed", claims=json.dumps(good_claims()).encode() + b"{}"),
    case("T-deep-nest-payload", "Malformed", claims=_deep(100_000)),
    case("T-deep-nest-header", "Malformed", header=_deep(100_000)),
    case("T-deep-nest-small", "Malformed", claims=_deep(40)),
    raw_claims("T-dup-claim-sub", "Malformed", '"sub": "bob"'),
    raw_claims("T-huge-int-claim", "Malformed", '"n": ' + "9" * 5000),
]

TIME = [
    claim("T-exp-string", "ClaimError exp invalid", exp="1795424065"),
    claim("T-exp-string-inf", "ClaimError exp invalid", exp="inf"),
    claim("T-exp-string-nan", "ClaimError exp invalid", exp="nan"),
    number("T-exp-NaN", "Malformed", "exp", "NaN"),
    number("T-exp--Infinity", "Malformed", "exp", "-Infinity"),
    number("T-exp-1e400", "Malformed", "exp", "1e400"),
    claim("T-exp-1e30", "ClaimError exp invalid", exp=1e30),
    claim("T-exp-year-10000", "ClaimError exp invalid", exp=253402300800),
    claim("T-exp-true", "ClaimError exp invalid", exp=True),
    claim("T-exp-array", "ClaimError exp invalid", exp=[1795424065]),
    claim("T-exp-null", "ClaimError exp invalid", exp=None),
    claim("T-exp-neg", "ClaimError exp invalid", exp=-1),
    claim("T-exp-zero", "ClaimError exp expired", exp=0),
    claim("T-exp-float", None, exp=1795424065.9),
    claim("T-exp-past", "ClaimError exp expired", exp=1795423755),
    claim("T-exp-exactly-now", "ClaimError exp expired", exp=int(NOW)),
    case("T-exp-missing", "ClaimError exp missing", omit=("exp",)),
    claim("T-nbf-future", "ClaimError nbf not_yet", nbf=1795424365),
    claim("T-nbf-now", None, nbf=int(NOW)),
    claim("T-nbf-string", "ClaimError nbf invalid", nbf="1795423760"),
    number("T-nbf-1e400", "Malformed", "nbf", "1e400"),
    claim("T-nbf-null", "ClaimError nbf invalid", nbf=None),
    claim("T-iat-string", "ClaimError iat invalid", iat="1795423760"),
    number("T-iat--Infinity", "Malformed", "iat", "-Infinity"),
    claim("T-iat-true", "ClaimError iat invalid", iat=True),
    claim("T-iat-null", "ClaimError iat invalid", iat=None),
    claim("T-iat-future", "ClaimError iat not_yet", iat=int(NOW) + 60),
    claim("T-iat-too-old", "ClaimError iat expired", iat=int(NOW) - 31 * 86400),
    case("T-iat-absent", None, omit=("iat",)),
    case("T-iat-absent-too-far", "ClaimError iat missing", omit=("iat",), claims={"exp": int(NOW) + 31 * 86400}),
]

ISSUERS = [
    *(
        claim(f"T-iss-{name}", "ClaimError iss mismatch", iss=value)
        for name, value in {
            "case": "https://IDP.example",
            "prefix": "https://idp.example.evil.com",
            "sub": "https://idp",
            "http": "http://idp.example",
            "slash": "https://idp.example/",
            "fullwidth": "https://idp\u3002example",
            "space": "https://idp.example ",
            "port": "https://idp.example:443",
            "empty": "",
        }.items()
    ),
    claim("T-iss-list", "ClaimError iss invalid", iss=[ISSUER]),
    claim("T-iss-null", "ClaimError iss invalid", iss=None),
    case("T-iss-missing", "ClaimError iss missing", omit=("iss",)),
]

AUDIENCES = [
    claim("T-aud-empty", "ClaimError aud mismatch", aud=""),
    claim("T-aud-emptylist", "ClaimError aud mismatch", aud=[]),
    claim("T-aud-substr", "ClaimError aud mismatch", aud="api://order"),
    claim("T-aud-superstr", "ClaimError aud mismatch", aud="api://orders2"),
    claim("T-aud-case", "ClaimError aud mismatch", aud="API://orders"),
    claim("T-aud-listnested", "ClaimError aud invalid", aud=[[AUDIENCE]]),
    claim("T-aud-dict", "ClaimError aud invalid", aud={AUDIENCE: 1}),
    claim("T-aud-int", "ClaimError aud invalid", aud=1),
    claim("T-aud-null", "ClaimError aud invalid", aud=None),
    claim("T-aud-listmixed", "ClaimError aud invalid", aud=[AUDIENCE, 1]),
    claim("T-aud-joined", "ClaimError aud mismatch", aud="x api://orders"),
    claim("T-aud-null-in-list", "ClaimError aud invalid", aud=[None]),
    claim("T-aud-other", "ClaimError aud mismatch", aud="client-a"),
    case("T-aud-missing", "ClaimError aud missing", omit=("aud",)),
    claim("T-aud-multi-ok", None, aud=["x", AUDIENCE]),
]

SUBJECT = [
    claim("T-sub-int", "ClaimError sub invalid", sub=1),
    claim("T-sub-null", "ClaimError sub invalid", sub=None),
    claim("T-sub-list", "ClaimError sub invalid", sub=["alice"]),
    claim("T-sub-bool", "ClaimError sub invalid", sub=True),
    claim("T-sub-empty", "ClaimError sub invalid", sub=""),
    case("T-sub-missing", "ClaimError sub missing", omit=("sub",)),
    claim("T-jti-int", "ClaimError jti invalid", jti=1),
    claim("T-sid-list", "ClaimError sid invalid", sid=["s"]),
    claim("T-client-id-dict", "ClaimError client_id invalid", client_id={}),
    claim("T-scope-int", "ClaimError scope invalid", scope=1),
    claim("T-scope-nested", "ClaimError scope invalid", scope=[["admin"]]),
    claim("H-cnf-as-bearer-jkt", "ClaimError cnf invalid", cnf={"jkt": "x"}),
    claim("H-cnf-as-bearer-x5t", "ClaimError cnf invalid", cnf={"x5t#S256": "x"}),
]

MALLEABLE = [
    *(
        spelled(f"T-mall-{alg}-{name}", "Malformed", respell, alg)
        for alg in ("RS256", "ES256", "EdDSA")
        for name, respell in {
            "trailbits": _spare_bits,
            "pad": lambda token: token + "=",
            "pad-many": lambda token: token + "====",
            "newline": lambda token: token + "\n",
            "inner-nl": _inside("\n"),
            "junk": _inside("!"),
            "junk4": _inside("!!!!"),
            "stdalpha": _standard_alphabet,
            "leadspace": lambda token: " " + token,
            "dotdot": lambda token: token + ".",
        }.items()
    ),
    signature("T-mall-ES256-n-s", None, _other_s),
    signature("T-mall-ES256-zeropad66", "BadSignature", lambda raw: b"\0" + raw[:32] + b"\0" + raw[32:]),
]

SIGNATURE = [
    *(
        signature(f"T-sig-{alg}-{name}", "BadSignature", change, alg)
        for alg in ("RS256", "ES256", "EdDSA")
        for name, change in {
            "empty": lambda _: b"",
            "appendzero": lambda raw: raw + b"\0",
            "trunc": lambda raw: raw[:-1],
            "flip": lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
        }.items()
    ),
    signature("T-sig-ES256-r0s0", "BadSignature", lambda _: bytes(64)),
    signature("T-sig-ES256-rNsN", "BadSignature", lambda _: ES256_ORDER.to_bytes(32, "big") * 2),
    Case("T-sig-other-key", lambda s: s.token(key=s.evil), "BadSignature"),
]

SHAPE = [
    spelled("T-shape-dots", "Malformed", lambda _: ".."),
    spelled("T-shape-one", "Malformed", lambda _: "abc"),
    spelled("T-shape-jwe", "Malformed", lambda token: token + ".AAAA.AAAA"),
    spelled("T-shape-16k", "Malformed", lambda token: token + "A" * 16384),
    spelled("T-shape-nonascii", "Malformed", lambda token: token[:-3] + "äöü"),
    Case("T-shape-json", _json_serialisation, "Malformed"),
]

JWKS = [
    keys("T-k-keyops-sign", "UnknownKey", lambda s: [s.rsa_jwk(use=None, key_ops=["encrypt"])]),
    keys("T-k-use-enc", "UnknownKey", lambda s: [s.rsa_jwk(use="enc")]),
    keys("T-k-alg-mismatch", "UnknownKey", lambda s: [s.rsa_jwk(alg="PS256")]),
    keys("T-k-alg-absent", None, lambda s: [s.rsa_jwk(alg=None)]),
    keys("T-k-dup-kid-second-good", None, lambda s: [s.rsa_jwk(s.evil), s.rsa_jwk()]),
    keys("T-k-dup-kid-first-good", None, lambda s: [s.rsa_jwk(), s.rsa_jwk(s.evil)]),
    keys("T-k-dup-kid-othertype", None, lambda s: [s.ec_jwk(kid="r1"), s.rsa_jwk()]),
    keys("T-k-unknown-kty-beside", None, lambda s: [{"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"}, s.rsa_jwk()]),
    keys("T-k-not-an-object-beside", None, lambda s: [None, 1, "x", [], s.rsa_jwk()]),  # type: ignore[list-item]
    keys("T-k-huge-e", "UnknownKey", lambda s: [s.rsa_jwk(e=b64(b"\xff" * 11))]),
    keys("T-k-e1", "UnknownKey", lambda s: [s.rsa_jwk(e="AQ")]),
    keys("T-k-even-e", "UnknownKey", lambda s: [s.rsa_jwk(e="AQAA")]),
    keys("T-k-private-leak", None, lambda s: [s.rsa_jwk(d="AQEBAQEBAQEBAQ")]),
    keys("T-k-oct", "UnknownKey", lambda _: [{"kty": "oct", "kid": "r1", "k": "AAAA", "alg": "HS256"}]),
    keys("T-k-none", "UnknownKey", lambda _: []),
]

CASES = [
    *CONTROL,
    *ALGORITHM,
    *HEADER,
    *KID,
    *CRIT,
    *TYPE,
    *JSON,
    *TIME,
    *ISSUERS,
    *AUDIENCES,
    *SUBJECT,
    *MALLEABLE,
    *SIGNATURE,
    *SHAPE,
    *JWKS,
]
