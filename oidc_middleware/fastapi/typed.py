"""Claims as a model of the application's: a pydantic model, a dataclass or a TypedDict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import ClaimError

T = TypeVar("T")

KEPT = 1024
"""Of how many tokens the validated claims are kept, where they cannot be changed."""


class TypedClaims(Generic[T]):
    """Reads the claims of a token as a `model`.

    What cannot be changed (a frozen model or dataclass) is made once for a token and serves all its requests; anything
    else is made anew for each.
    """

    def __init__(self, model: type[T]) -> None:
        self.model: type[T] = model
        self.name: str = getattr(model, "__name__", repr(model))  # a union has none
        # pydantic knows the TypedDict of the standard library from Python 3.12 on only.
        self._read: Callable[[bytes], T] = (
            msgspec.json.Decoder(model).decode if _is_typed_dict(model) else TypeAdapter(model).validate_json
        )
        self._keeps = _is_frozen(model)
        self._kept: dict[bytes, T] = {}

    def of(self, principal: Principal) -> T:
        """Return the claims of a verified token.

        Raises:
            ClaimError: they do not fit. It names the claim, and holds no value of one.
        """
        payload = principal.payload
        found = self._kept.get(payload)
        if found is not None:
            return found
        try:
            claims = self._read(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise self._misfit(".".join(map(str, first["loc"])), first["type"]) from None
        except msgspec.ValidationError as error:
            raise self._misfit(*_place_and_kind(str(error))) from None
        if self._keeps:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[payload] = claims
        return claims

    def _misfit(self, place: str, kind: str) -> ClaimError:
        reason: Literal["missing", "invalid"] = "missing" if kind == "missing" else "invalid"
        return ClaimError(place or self.name, reason, f"does not fit {self.name}: {kind}")


def _place_and_kind(problem: str) -> tuple[str, str]:
    """Return where something is wrong, and what; the text of msgspec may hold a value."""
    what, _, place = problem.partition(" - at `$.")
    missing = re.match("Object missing required field `([^`]+)`", what)
    places = [place.rstrip("`")] if place else []
    return (".".join([*places, missing[1]]), "missing") if missing else (".".join(places), "of another type")


def _is_typed_dict(model: object) -> bool:
    """Tell whether this is a TypedDict, be it that of `typing_extensions`, which `typing` does not know everywhere."""
    return hasattr(model, "__total__") and hasattr(model, "__required_keys__")


def _is_frozen(model: object) -> bool:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return bool(model.model_config.get("frozen"))
    parameters = getattr(model, "__dataclass_params__", None)
    return dataclasses.is_dataclass(model) and bool(parameters and parameters.frozen)
