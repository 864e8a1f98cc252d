"""Pages for people: what happened, and what they can do now. No script, no image, nothing from anywhere else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from http import HTTPStatus
from typing import Final, NamedTuple

from starlette.responses import Response

_STYLE: Final = (
    ":root{color-scheme:light dark;--line:#d4d8de;--soft:#57606a;--back:#f5f6f8;--card:#fff;--act:#1f5fbf}"
    "@media(prefers-color-scheme:dark)"
    "{:root{--line:#3a3f47;--soft:#a4acb6;--back:#15181c;--card:#1d2126;--act:#7db1ff}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--back);"
    "font:1rem/1.5 system-ui,sans-serif}"
    "main{width:100%;max-width:28rem;padding:2rem clamp(1rem,5vw,1.75rem);background:var(--card);"
    "border:1px solid var(--line);border-radius:.75rem;overflow-wrap:anywhere}"
    "h1{font-size:1.375rem;line-height:1.3;margin:0 0 .75rem}"
    "p{margin:0 0 .75rem}"
    ".said{color:var(--soft);border-left:3px solid var(--line);padding-left:.75rem}"
    "nav{display:grid;gap:.625rem;margin-top:1.25rem}"
    "a,button{display:block;width:100%;padding:.625rem .5rem;text-wrap:balance;border:1px solid var(--act);"
    "border-radius:.5rem;background:none;color:var(--act);font:inherit;cursor:pointer;text-align:center;"
    "text-decoration:none;font-weight:600}"
    "a:hover,a:focus-visible,button:hover,button:focus-visible{outline:2px solid var(--act);outline-offset:2px}"
)
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode("ascii")
HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What keeps a page to itself: in no frame, in no cache, its address told to nobody."""

# Browsers hold where a form's answer redirects to against form-action, and where the issuer sends them is its affair.
# And of a page that tells nobody its address a form has no Origin, by which we know that it is ours.
_HEADERS_OF_FORMS: Final = {
    **HEADERS,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"].replace("form-action 'none'; ", ""),
    "Referrer-Policy": "same-origin",
}


class Form(NamedTuple):
    """A button that sends a form: what it says, where to, and the fields that nobody sees."""

    label: str
    action: str
    sent: tuple[tuple[str, str], ...] = ()


class Action(NamedTuple):
    """Where somebody can go from a page: what the link says, and where it leads."""

    label: str
    href: str


def page(
    title: str,
    paragraphs: Iterable[str],
    actions: Iterable[Action] = (),
    *,
    form: Form | None = None,
    said: str = "",
    status: int = HTTPStatus.OK,
) -> Response:
    """Return a page. All of it is text; `said` is what somebody else says, and looks like it."""
    body = "".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in paragraphs)
    body += f'<p class="said">{escape(said)}</p>\n' if said else ""
    links = "" if form is None else _form(form)
    links += "".join(f'<a href="{escape(action.href)}">{escape(action.label)}</a>\n' for action in actions)
    body += f"<nav>\n{links}</nav>\n" if links else ""
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
    headers = HEADERS if form is None else _HEADERS_OF_FORMS
    return Response(html, status_code=status, media_type="text/html", headers=headers)


def framed(origin: str) -> Response:
    """Return an empty page that pages of this origin may have in a frame, and nobody else's."""
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors {origin}"
    headers = {name: value for name, value in HEADERS.items() if name != "X-Frame-Options"}
    html = '<!doctype html>\n<html lang="en">\n<title>Signed out</title>\n</html>\n'
    return Response(html, media_type="text/html", headers={**headers, "Content-Security-Policy": policy})


def _form(form: Form) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in form.sent
    )
    return f'<form method="post" action="{escape(form.action)}">{hidden}<button>{escape(form.label)}</button></form>\n'
