"""`requires`: what one endpoint, or one app, asks of the identity that the door found."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Final, ParamSpec, TypeVar, overload

from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from oidc_middleware.asgi.guard import MARK, Guard, GuardedApp
from oidc_middleware.asgi.refusal import ask_for, refusal_of
from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.core.principal import Principal
from oidc_middleware.core.requirement import ExpectedClaims, Requirement, Words
from oidc_middleware.wiring import OIDC

P = ParamSpec("P")
EndpointClass = TypeVar("EndpointClass", bound=type[HTTPEndpoint] | type[WebSocketEndpoint])

_NOTHING: Final = MappingProxyType[str, str]({})
_CONNECTIONS: Final = ("request", "websocket")
_ASGI: Final = ["scope", "receive", "send"]


def requires(
    *scopes: str, any_scopes: Words = (), claims: ExpectedClaims = _NOTHING, audience: str | None = None
) -> Requires:
    """Return a decorator by which an endpoint, or an app, asks more of the identity than being valid.

    The identity needs all of `scopes`, one of `any_scopes`, `audience` among its audiences (`aud`), and every entry of
    `claims`, as in `Rule`; `requires()` asks for any identity. Whoever has none is answered with 401, whoever lacks
    something with 403 `insufficient_scope`, and the challenge names all scopes of the operation, those of rules too.

    It decorates functions with a parameter `request` or `websocket`, methods of endpoint classes and such classes, and
    wraps ASGI apps: `Mount("/admin", app=requires("admin")(app))`, `Middleware(requires("admin"))`. A WebSocket is
    refused before it is accepted. An app that is wrapped gets CORS preflights as the door lets them through.

    Raises:
        PolicyError: it asks for what no token can have. It is a ValueError.
        TypeError: it decorates what is neither endpoint nor app.

    Source: RFC 6750 §3 and §3.1.
    """
    if scopes and callable(scopes[0]):
        raise TypeError('requires takes scopes: write @requires() or @requires("read")')
    if "authenticated" in scopes:
        problem = "'authenticated' is Starlette's word for any identity, and no scope"
        raise PolicyError("requires", problem, "Write requires() for any identity.")
    try:
        return Requires(Requirement(scopes, any_scopes, dict(claims) if claims is _NOTHING else claims, audience))
    except PolicyError as error:
        cure = 'Write requires("read", "write").' if error.problem.startswith("scopes") else error.cure
        refused = PolicyError("requires", error.problem, cure)
    raise refused


def optional_user(conn: HTTPConnection) -> Principal | None:
    """Return who sent this request or WebSocket, None for somebody who is anonymous.

    Anonymous ones get in on `optional` paths; on `public` ones everybody is, for credentials are not read there.

    Raises:
        LookupError: no `OIDCMiddleware` stands in front of the app.
    """
    OIDC.from_scope(conn.scope)
    user = conn.scope.get("user")
    return user if isinstance(user, Principal) else None


class Requires:
    """What `requires` returns: it puts its requirement in front of an endpoint or app."""

    __slots__ = ("requirement",)

    def __init__(self, requirement: Requirement) -> None:
        self.requirement: Requirement = requirement

    @overload
    def __call__(self, endpoint: EndpointClass, /) -> EndpointClass: ...
    @overload
    def __call__(self, endpoint: Callable[[Scope, Receive, Send], Awaitable[None]], /) -> ASGIApp: ...
    @overload
    def __call__(self, endpoint: Callable[P, Any], /) -> Callable[P, Any]: ...
    def __call__(self, endpoint: Any, /) -> Any:
        """Return the endpoint or app with the requirement in front of it.

        Raises:
            TypeError: it is neither.
        """
        if isinstance(endpoint, type):
            return self._before_class(endpoint)
        if not callable(endpoint):
            raise TypeError(f"requires decorates endpoints and apps, and {endpoint!r} is neither")
        parameters = inspect.signature(endpoint).parameters
        for place, name in enumerate(parameters):
            if name in _CONNECTIONS:
                return _before_function(self._guard(endpoint), endpoint, place, name)
        if list(parameters)[:3] == _ASGI or (not inspect.isroutine(endpoint) and _takes_anything(parameters)):
            return GuardedApp(endpoint, self._guard(endpoint))
        found = f"{_name(endpoint)}({', '.join(parameters)})"
        cure = "give it one (an ASGI app has scope, receive and send)"
        raise TypeError(f"requires finds no parameter request or websocket in {found}: {cure}")

    def _guard(self, endpoint: Any) -> Guard:
        further_in = endpoint.guard if isinstance(endpoint, GuardedApp) else getattr(endpoint, MARK, None)
        others = further_in.requirements if isinstance(further_in, Guard) else ()
        return Guard(_name(endpoint), (self.requirement, *others))

    def _before_class(self, endpoint: type[Any]) -> type[Any]:
        if not issubclass(endpoint, HTTPEndpoint | WebSocketEndpoint):
            raise TypeError(
                f"requires decorates HTTPEndpoint and WebSocketEndpoint classes, and {endpoint!r} is neither"
            )
        guard, dispatch = self._guard(endpoint), endpoint.dispatch

        @wraps(dispatch)
        async def guarded(self: HTTPEndpoint | WebSocketEndpoint) -> None:
            if guard.refuses(self.scope) is None:
                ask_for(self.scope, guard.scopes)
                await dispatch(self)  # type: ignore[arg-type]
                return
            whole = Guard(guard.place, (*guard.requirements, *_of_method(self)))
            error = whole.refuses(self.scope)
            assert error is not None  # noqa: S101  it asks more than what was refused
            await refusal_of(self.scope).answer(self.scope, self.receive, self.send, error, whole.scopes)

        endpoint.dispatch = guarded  # type: ignore[method-assign]
        return endpoint


def _before_function(guard: Guard, endpoint: Callable[..., Any], place: int, name: str) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):
        raise TypeError(f"{guard.place} is a generator: return a StreamingResponse instead")
    is_async = _is_async(endpoint)
    if name == "websocket" and not is_async:
        raise TypeError(f"{guard.place} serves a WebSocket: write async def")
    if name == "websocket":

        @wraps(endpoint)
        async def guarded_socket(*args: Any, **kwargs: Any) -> Any:
            websocket = kwargs[name] if name in kwargs else args[place]
            error = guard.refuses(websocket.scope)
            return await endpoint(*args, **kwargs) if error is None else await guard.end(websocket, error)

        return _marked(guarded_socket, guard)
    if is_async:

        @wraps(endpoint)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            scope = (kwargs[name] if name in kwargs else args[place]).scope
            error = guard.refuses(scope)
            return await endpoint(*args, **kwargs) if error is None else guard.response(scope, error)

        return _marked(guarded, guard)

    @wraps(endpoint)
    def guarded_in_thread(*args: Any, **kwargs: Any) -> Any:
        scope = (kwargs[name] if name in kwargs else args[place]).scope
        error = guard.refuses(scope)
        return endpoint(*args, **kwargs) if error is None else guard.response(scope, error)

    return _marked(guarded_in_thread, guard)


def _marked(guarded: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    setattr(guarded, MARK, guard)
    return guarded


def _is_async(endpoint: Any) -> bool:
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    return inspect.iscoroutinefunction(endpoint) or inspect.iscoroutinefunction(type(endpoint).__call__)


def _of_method(endpoint: HTTPEndpoint | WebSocketEndpoint) -> tuple[Requirement, ...]:
    """Return what the method asks that would serve this request."""
    method = endpoint.scope["method"].lower() if isinstance(endpoint, HTTPEndpoint) else "on_connect"
    if method == "head" and not hasattr(endpoint, "head"):
        method = "get"
    guard = getattr(getattr(endpoint, method, None), MARK, None)
    return guard.requirements if isinstance(guard, Guard) else ()


def _takes_anything(parameters: Any) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters.values())


def _name(endpoint: Any) -> str:
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    return str(name)
