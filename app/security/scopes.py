"""What a key may do. Each route names its scope; a route without one does not start (`check_routes`)."""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute

from app.contracts.errors import ErrorCode, HemostatError

KEY: Final = "hemostat.key"  # the key of a request, in its ASGI scope
# Probes: they show whether the service is well and no more, and an orchestrator has no key.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
# A plain route without dependencies. Any key may read it.
_OWN_PATHS: Final = OPEN_PATHS | {"/openapi.json"}


class Scope(StrEnum):
    """A group of routes."""

    INFERENCE = "inference"  # OpenAI's routes
    DIAGNOSE = "diagnose"  # submit, cancel and delete one's own jobs
    READ = "read"  # one's own jobs, their reports and events; deployments and profiles
    DEPLOY = "deploy"  # change deployments and profiles
    METRICS = "metrics"
    ADMIN = "admin"  # every scope, and the jobs of all owners


@dataclass(frozen=True)
class Key:
    """An API key as the service knows it. `expires` is Unix time in seconds; None: never."""

    owner: str
    digest: str
    scopes: frozenset[Scope]
    expires: float | None = None
    no_shadow: bool = False  # what is generated for it is never scored again

    @property
    def id(self) -> str:
        """Names the key in logs and commands."""
        return self.digest[:8]

    def may(self, scope: Scope) -> bool:
        """Whether it has this scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, owner: str) -> bool:
        """Whether it reads the jobs of this owner."""
        return owner == self.owner or Scope.ADMIN in self.scopes

    @property
    def reads(self) -> str | None:
        """The owner whose jobs it reads; None: all of them."""
        return None if Scope.ADMIN in self.scopes else self.owner


# Anyone who reaches a service without keys: a user of this machine.
LOCAL_USER: Final = Key("", "", frozenset({Scope.ADMIN}))


def key_of(connection: HTTPConnection) -> Key:
    """The key of a request that was let in."""
    found: Key = connection.scope[KEY]
    return found


def client_of(scope: MutableMapping[str, Any]) -> str:
    """The owner of a request's key, or without keys its address: whose limits it counts against."""
    return scope[KEY].owner or (scope.get("client") or ("local",))[0]


def require(request: Request, scope: Scope) -> None:
    """Raises HemostatError (NOT_PERMITTED) unless the request's key has this scope."""
    key = key_of(request)
    if not key.may(scope):
        raise HemostatError(
            ErrorCode.NOT_PERMITTED,
            f"The key {key.id} of {key.owner} may not do this: it has {', '.join(sorted(key.scopes))}, "
            f"and this needs {scope}.",
        )


@dataclass(frozen=True)
class Needs:
    """A dependency of routes: `APIRouter(dependencies=[Depends(Needs(Scope.READ))])`. None: any key is enough.

    It runs before a route reads its query or its body.
    """

    scope: Scope | None

    async def __call__(self, request: Request) -> None:
        """Raises HemostatError (NOT_PERMITTED)."""
        if self.scope is not None:
            require(request, self.scope)


def check_routes(routes: Iterable[BaseRoute]) -> None:
    """Raises RuntimeError for a route that names no scope."""
    for route in routes:
        path = getattr(route, "path", "")
        if path not in _OWN_PATHS and not needed(route):
            raise RuntimeError(f"the route {path} names no scope: give its router or itself Depends(Needs(…))")


def needed(route: Any) -> list[Needs]:
    """What a route asks of a key."""
    given = (one.dependency for one in getattr(route, "dependencies", ()))
    return [one for one in given if isinstance(one, Needs)]
