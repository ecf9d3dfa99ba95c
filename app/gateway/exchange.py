"""One request to an OpenAI route, from a checked body to the last byte of its answer."""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
from prometheus_client import Histogram
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.contracts.deployment import IDENTITY, NOT_FINITE, Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.gateway import errors
from app.gateway.body import PROMPTS, dump
from app.gateway.bounds import most_tokens, sequences
from app.gateway.core import Gateway, fingerprint
from app.gateway.errors import ApiError
from app.gateway.options import Options
from app.gateway.replicas import Choice, FullError
from app.gateway.rewrite import Outcome, Rewriter, Route
from app.gateway.sampling import completed
from app.gateway.shadow import eligible
from app.gateway.sse import DONE, Event, EventTooLargeError, Parser
from app.gateway.upstream import DoorSilentError, ReplicaLostError, ReplicaSilentError, read
from app.gateway.watching import until_left
from app.gateway.writer import SlowClientError, Writer
from app.security.scopes import Key

logger = logging.getLogger(__name__)

PATHS: Final[dict[Route, str]] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
}
# A request that ends the replicas it reaches must not end all of them.
MAX_ATTEMPTS: Final = 3


class Exchange(Response):
    """The answer to one request. `body` is the client's, without `hemostat`; it is not changed. What it leaves open is
    sampled as the deployment says."""

    def __init__(
        self,
        gateway: Gateway,
        route: Route,
        deployment: Deployment,
        body: dict[str, Any],
        options: Options,
        *,
        key: Key,
    ) -> None:
        super().__init__()
        self.gateway = gateway
        self.route: Route = route
        self.deployment = deployment
        self.request = completed(body, deployment.sampling, verified=options.verify)
        self.options = options
        self.key = key
        self.streamed = bool(body.get("stream"))
        self.began = time.perf_counter()
        self.status = 0
        self.spent = 0  # tokens, as far as the replica has counted them, else events of a stream
        self.prompt_at_most = 0  # tokens of a prompt that was sent and is not counted yet: a token has at least a byte
        self.sent_at = self.began
        self.sampled = (
            options.shadow
            and not options.verify
            and not key.no_shadow
            and eligible(route, body)
            and gateway.sampler.wants(deployment)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or raises HemostatError where nothing has been sent yet."""
        settings = self.gateway.settings
        writer = Writer(send, heartbeat_s=settings.sse_heartbeat_s, timeout_s=settings.gateway_write_timeout_s)
        try:
            end = await until_left(
                self._run(writer, scope, receive, send), receive, self.gateway.stopping, settings.drain_s
            )
            if end != "done":
                self._aborted(end)
                if end == "shutdown":
                    await self._fail(writer, ApiError(ErrorCode.UNAVAILABLE, "The service stops.", retry_after_s=5))
        except SlowClientError:
            self._aborted("slow_client")
        except HemostatError as error:
            self._drop("failed")
            await self._fail(writer, error)
        finally:
            self._drop("failed")  # whatever else went wrong
            self.gateway.spend(self.key.owner, self.spent + self._owed())
            self.gateway.account(self.deployment, PATHS[self.route], self.status or 500)

    async def _fail(self, writer: Writer, error: HemostatError) -> None:
        self.status = error.status
        self.prompt_at_most = 0
        if not writer.started:
            raise error
        with contextlib.suppress(SlowClientError):
            await writer.fail(error, typed=self.route == "responses")

    def _sending(self, prompt_at_most: int) -> None:
        self.prompt_at_most, self.sent_at = prompt_at_most, time.perf_counter()

    @property
    def _paced(self) -> tuple[str, bool]:
        return self.deployment.id, self.options.verify

    def _owed(self) -> int:
        """What was sent and is not counted: the prompt, and the tokens of an answer that is not streamed. These are
        estimated by time, up to what the request allows."""
        if self.streamed or not self.prompt_at_most:
            return self.prompt_at_most
        generated = self.gateway.pace(self._paced) * (time.perf_counter() - self.sent_at)
        return self.prompt_at_most + round(min(generated, most_tokens(self.request)) * sequences(self.request))

    def _counted(self, prompt: int, completion: int) -> None:
        """An answer is whole."""
        self.gateway.metrics.tokens.labels(self.deployment.name, "prompt").inc(prompt)
        self.gateway.metrics.tokens.labels(self.deployment.name, "completion").inc(completion)
        self.gateway.pace(self._paced, completion / sequences(self.request), time.perf_counter() - self.sent_at)
        self.spent = prompt + completion
        self.prompt_at_most = 0

    def _aborted(self, reason: str) -> None:
        self.status = 499
        self.gateway.metrics.aborts.labels(self.deployment.name, reason).inc()
        self._drop("aborted")

    def _drop(self, reason: str) -> None:
        if self.sampled:
            self.sampled = False
            self.gateway.sampler.drop(self.deployment, reason)

    async def _run(self, writer: Writer, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            turn = self.gateway.grammars.turn(self.key.owner, self.deployment, self.request)
            async with turn, self.gateway.line(self.deployment).place(self.key.owner):
                found = await self._found()  # replicas and version may have changed while it waited
                again = found.id == self.deployment.id
                self.deployment = found
                if again:
                    return await self.answer(writer, scope, receive, send)
            # Another deployment has the name by now, which has a queue of its own.

    async def _found(self) -> Deployment:
        return await self.gateway.directory.find(self.deployment.name)

    async def answer(self, writer: Writer, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the request to a replica, and to another one where the first fails before anything was answered."""
        tried: set[str] = set()
        attempts = 0
        while True:
            choice = await self._free(tried)
            if choice is None and attempts < 2:  # the only replica: it may have closed an idle connection
                tried.clear()
                choice = await self._free(tried)
            if choice is None or attempts == MAX_ATTEMPTS:
                raise _lost()
            attempts += 1
            try:
                with self.gateway.replicas.busy(choice.replica):
                    response = await self._attempt(choice, writer)
            except ReplicaLostError as error:
                logger.warning("replica %s failed: %s", choice.replica.id, error)
                self.gateway.replicas.failed(choice.replica)
                tried.add(choice.replica.id)
                if writer.started:
                    raise _lost() from None
                if isinstance(error, ReplicaSilentError):
                    self.spent += self._owed()
                    raise _silent() from None
                self.gateway.metrics.retries.labels(self.deployment.name).inc()
                await self.gateway.directory.refresh()
                self.deployment = await self._found()
                continue
            if response is not None:
                self.status = response.status_code
                await response(scope, receive, send)
            return

    async def _free(self, tried: set[str]) -> Choice | None:
        """The replica that answers, once one of those that can has room: all of the queue's room may be at others."""
        timeout_s = self.gateway.settings.gateway_queue_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return self._choose(tried)
                    except FullError:
                        await self.gateway.replicas.freed()
                        self.deployment = await self._found()
        except TimeoutError:
            raise self.gateway.line(self.deployment).too_late() from None

    def _choose(self, tried: set[str]) -> Choice | None:
        most = self.gateway.settings.gateway_max_in_flight
        choice = self.gateway.replicas.choose(self.deployment, self.options.pinned, frozenset(tried), most=most)
        if choice is None or not self.request.get("use_beam_search"):
            return choice
        if self.options.pinned not in (None, IDENTITY):
            raise errors.invalid("Beam search is not calibrated.", "use_beam_search", hint='Ask for "off".')
        return Choice(choice.replica, IDENTITY)

    async def _attempt(self, choice: Choice, writer: Writer) -> Response | None:
        """One replica's answer: None if it was streamed. Raises ReplicaLostError, and ApiError for a refusal."""
        request_id = uuid.uuid4().hex  # not the client's: it must be this attempt's alone
        served = await self.gateway.upstream.served_name(choice.replica)
        mark = fingerprint(self.deployment, choice.version)
        rewriter = Rewriter(
            self.route,
            served=served,
            model=self.deployment.name,
            fingerprint=mark,
            sampled=self.sampled,
            ids=bool(self.request.get("return_token_ids")),
            usage=bool((self.request.get("stream_options") or {}).get("include_usage")),
        )
        headers = {"x-hemostat-calibration": choice.version}
        sent = dump(self._sent(served, choice, request_id))
        self._sending(len(sent))
        async with self.gateway.upstream.post(choice.replica, PATHS[self.route], sent, stream=self.streamed) as answer:
            if answer.status_code != 200:
                error = errors.from_replica(answer.status_code, await read(answer), PROMPTS[self.route])
                if error.code is ErrorCode.REPLICA_UNAVAILABLE:
                    raise ReplicaLostError("it takes no requests")
                if answer.status_code >= 500:
                    await self.gateway.upstream.check_alive(choice.replica)
                    await self._check_ended(choice, request_id, failed=True)
                raise error
            if not self.streamed:
                return await self._whole(answer, rewriter, choice, request_id, headers)
            async with writer.open(headers):
                await self._stream(answer, rewriter, choice, request_id, writer)
        return None

    def _sent(self, served: str, choice: Choice, request_id: str) -> dict[str, Any]:
        """The body as the replica gets it."""
        extra: dict[str, Any] = {"hemostat_request": request_id, "hemostat_version": choice.version}
        sent = self.request | {"model": served}
        if self.sampled:
            extra["hemostat_keep_hidden"] = 1
            sent["return_token_ids"] = True
        sent["vllm_xargs"] = {**(self.request.get("vllm_xargs") or {}), **extra}
        if self.key.owner:
            sent["cache_salt"] = self._salt()
        if self.route == "responses":
            sent["store"] = False
        elif self.streamed:
            asked = self.request.get("stream_options") or {}
            if not asked.get("include_usage"):
                sent["stream_options"] = {**asked, "include_usage": True, "continuous_usage_stats": False}
        return sent

    def _salt(self) -> str:
        """Of the replica's prefix cache: how long a prompt takes must not show what other owners asked."""
        return hashlib.sha256(f"{self.key.owner}:{self.request.get('cache_salt') or ''}".encode()).hexdigest()

    async def _whole(
        self, answer: httpx.Response, rewriter: Rewriter, choice: Choice, request_id: str, headers: dict[str, str]
    ) -> Response:
        try:
            body, forced = rewriter.answer(await read(answer))
        except ValueError as error:
            raise ReplicaLostError("its answer is no JSON") from error
        if forced or self._ends_unmarked:
            await self._check_ended(choice, request_id)
        self._complete(rewriter, choice, request_id)
        return Response(body, headers=headers, media_type="application/json")

    async def _stream(
        self, answer: httpx.Response, rewriter: Rewriter, choice: Choice, request_id: str, writer: Writer
    ) -> None:
        clock = self.gateway.metrics.between_tokens.labels(self.deployment.name)
        before: float | None = None
        ended = False
        async for events in _events(answer):
            ready: list[bytes] = []  # what came at once goes at once: one write, however many events
            try:
                for event in events:
                    if event.data == DONE:
                        ended = True
                        break
                    outcome = _read(rewriter, event)
                    if outcome.error is not None:
                        told = _told(outcome.error, PROMPTS[self.route])
                        if told.status >= 500:
                            await self.gateway.upstream.check_alive(choice.replica)
                        await self._check_ended(choice, request_id, failed=True)
                        raise told
                    if outcome.tokens:
                        self.spent += 1
                        before = self._timed(clock, before)
                    if outcome.forced or (outcome.finished and self._ends_unmarked):
                        await self._check_ended(choice, request_id)
                    if outcome.data is not None:
                        ready.append(Event(outcome.data, event.name).encode())
                    if outcome.last:
                        ended = True
                        break
            except (HemostatError, ReplicaLostError):
                await _flush(writer, ready)  # what came before the event that failed
                raise
            await _flush(writer, ready)
            if ended:
                break
        else:
            raise ReplicaLostError("its stream has no end")
        self._complete(rewriter, choice, request_id)
        self.status = 200
        await writer.done()

    def _timed(self, between: Histogram, before: float | None) -> float:
        """Observes the time since the token before, or since the request came; the time of this one."""
        now = time.perf_counter()
        if before is None:
            self.gateway.metrics.first_token.labels(self.deployment.name).observe(now - self.began)
        else:
            between.observe(now - before)
        return now

    @property
    def _ends_unmarked(self) -> bool:
        """A beam search shows no stop token; log-probabilities of a prompt are computed when its first token is drawn
        already, which may be the only one."""
        asked = self.request
        return bool(asked.get("use_beam_search") or asked.get("prompt_logprobs") is not None or asked.get("echo"))

    async def _check_ended(self, choice: Choice, request_id: str, *, failed: bool = False) -> None:
        """Asks the engine whether it ended this request; raises ApiError where it did. The engine computes meanwhile,
        and its answer may take a step: for ends alone that look so.

        An engine that cannot be asked may have ended it. That is an error, unless there is one anyway (`failed`), or a
        stop token that the client named explains the end.
        """
        try:
            why = await self.gateway.upstream.why_ended(choice.replica, request_id)
        except DoorSilentError:
            if failed or (self.request.get("stop_token_ids") and not self._ends_unmarked):
                return
            detail = "The replica cannot tell whether its engine ended this answer early."
            raise _again(detail) from None
        if why == NOT_FINITE:
            raise ApiError(
                ErrorCode.NONFINITE_LOGITS,
                "The model's logits were not finite numbers for this request.",
                hint="The model is broken for this input: compare it with its reference.",
                retry=False,
            )
        if why:
            raise _again(f"The replica ended this request: {errors.clean(why)[:200]}.")

    def _complete(self, rewriter: Rewriter, choice: Choice, request_id: str) -> None:
        seen = rewriter.seen
        self._counted(seen.prompt_tokens, seen.completion_tokens)
        if self.sampled:
            self.sampled = False
            self.gateway.sampler.done(self.deployment, request_id, choice.version, self.request, seen)


async def _events(answer: httpx.Response) -> AsyncIterator[list[Event]]:
    """The events that are whole after each read of the replica's connection, together."""
    parser = Parser()
    async for chunk in answer.aiter_raw():
        events: list[Event] = []
        try:
            events.extend(parser.feed(chunk))
        except EventTooLargeError as error:
            yield events
            raise errors.too_large(str(error)) from error
        if events:
            yield events


async def _flush(writer: Writer, ready: list[bytes]) -> None:
    if ready:
        await writer.write(b"".join(ready))


def _read(rewriter: Rewriter, event: Event) -> Outcome:
    try:
        return rewriter.event(event)
    except ValueError as error:
        raise ReplicaLostError("an event of its stream is no JSON") from error


def _told(error: dict[str, Any], prompt: str) -> ApiError:
    """The error that an event of the replica's stream holds."""
    code = error.get("code")
    param = error.get("param")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return errors.from_words(status, str(error.get("message", "")), param if isinstance(param, str) else None, prompt)


def _silent() -> ApiError:
    return ApiError(
        ErrorCode.REPLICA_UNAVAILABLE,
        "The replica did not answer in time.",
        hint="Ask for fewer tokens, or stream the answer.",
        retry=False,
        retry_after_s=2,
    )


def _lost() -> ApiError:
    return _again("The replica that answered this request was lost, or none could be reached.")


def _again(detail: str) -> ApiError:
    return ApiError(ErrorCode.REPLICA_UNAVAILABLE, detail, hint="Send the request again.", retry_after_s=2)
