"""Verified decoding: the deployment's verify process drafts and verifies, this makes OpenAI's answers of its blocks.

The process takes token ids and returns blocks of tokens, one JSON object per line. The last one holds the end, the
usage, the acceptance rate and the tokens per pass of the reference. What would change the distribution that is promised
(biases, penalties, constraints, several sequences) is refused rather than ignored.
"""

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.contracts.deployment import Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode
from app.gateway import errors
from app.gateway.body import PROMPTS
from app.gateway.core import fingerprint
from app.gateway.errors import ApiError, invalid
from app.gateway.exchange import Exchange
from app.gateway.replicas import reached
from app.gateway.rewrite import dump
from app.gateway.upstream import ReplicaLostError, read
from app.gateway.writer import Writer

logger = logging.getLogger(__name__)

VERSION: Final = "verified"  # in the place of a calibration version: the reference's own distribution
MAX_LINE_BYTES: Final = 1024 * 1024
RETRY_S: Final = 10  # a start takes from seconds to minutes
# Where none are asked for: 16 of a completion, as OpenAI and vLLM have it; a conversation's would be the whole context,
# which is longer than what a verify process takes.
_DEFAULT_TOKENS: Final = {"completions": 16, "chat": 256}

_SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p", "stop_token_ids", "stop", "seed")
_TEMPLATE: Final = (
    *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
    *("chat_template_kwargs", "chat_template"),
)
_TAKEN: Final = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
        *("user", "metadata", "store", "service_tier", "request_id"),
        *_SAMPLING,
        *_TEMPLATE,
    }
)
# Given explicitly, these values ask for nothing.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "echo": (False,),
    "use_beam_search": (False,),
    "return_token_ids": (False,),
    "ignore_eos": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


def check(route: str, body: dict[str, Any]) -> None:
    """Raises ApiError (400) for what cannot be had together with verification."""
    if route == "responses":
        raise invalid("Verified decoding supports chat and completions only.", "hemostat.verify")
    for name, value in body.items():
        if value is None or name in _TAKEN or _neutral(name, value):
            continue
        raise invalid(f"`{name[:64]}` cannot be combined with verified decoding.", name[:64])
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(token, int) for token in prompt):
        raise invalid("Verified decoding takes one prompt.", "prompt")


def _neutral(name: str, value: Any) -> bool:
    """Whether it asks for nothing. 0 is not false: it asks a completion for the log-probability of what was drawn."""
    return any(
        value == nothing and isinstance(value, bool) == isinstance(nothing, bool) for nothing in _NEUTRAL.get(name, ())
    )


def verifier(deployment: Deployment) -> Replica:
    """The living verify process.

    Raises ApiError with the reason where there is none: 501 where there will be none, 503 where it is about to be.
    """
    running = [replica for replica in deployment.running if replica.role == "verify"]
    able = [replica for replica in running if replica.url and reached(replica)]
    ready = [replica for replica in able if replica.state is DeploymentState.READY]
    if ready:
        return ready[0]
    failed = [replica for replica in running if replica.state is DeploymentState.FAILED]
    if failed:
        raise _unavailable(deployment, failed[0].reason or "its verify process failed", "Leave `verify` out.")
    if running:
        one = running[0]
        why = f"its verify process is {one.state.value}{f' ({one.reason})' if one.reason else ''}"
        raise _not_yet(deployment, why)
    if deployment.verify:
        raise _not_yet(deployment, "its verify process does not run")
    create = f"`hemostat deploy create NAME --model {deployment.model.model} … --verify` makes one that has it"
    hint = f"Verification is switched on where a deployment is made: {create}."
    raise _unavailable(deployment, "it is not switched on for this deployment", hint)


def _unavailable(deployment: Deployment, why: str, hint: str) -> ApiError:
    return ApiError(
        ErrorCode.VERIFY_UNAVAILABLE, _because(deployment, why), param="hemostat.verify", hint=hint, retry=False
    )


def _not_yet(deployment: Deployment, why: str) -> ApiError:
    return ApiError(
        ErrorCode.REPLICA_UNAVAILABLE,
        _because(deployment, why),
        param="hemostat.verify",
        hint="Ask again.",
        retry_after_s=RETRY_S,
    )


def _because(deployment: Deployment, why: str) -> str:
    return f"Verified decoding of {deployment.name} is not available: {errors.clean(why)[:500].rstrip('.')}."


@dataclass
class Finish:
    """The last line: what it ended for, and how well the draft did."""

    reason: str = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    hemostat: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Finish":
        """From the line's members."""
        told = {name: line.get(name) for name in ("acceptance_rate", "tokens_per_reference_pass")}
        return cls(str(line["finish_reason"]), dict(line.get("usage") or {}), {"verified": True, **told})


class VerifiedExchange(Exchange):
    """As `Exchange`, answered by the verify process."""

    async def answer(self, writer: Writer, scope: Scope, receive: Receive, send: Send) -> None:
        """Tokenizes at a replica, then lets the verify process generate. It is not asked twice."""
        replica = verifier(self.deployment)
        try:
            with self.gateway.replicas.busy(replica):
                prompt, room = await self._prompt()
                asked = dump(self._asked(prompt, room))
                self._sending(len(prompt))
                async with self.gateway.upstream.post(replica, "/v1/verified", asked, stream=True) as answer:
                    if answer.status_code != 200:
                        raise self._refused(answer.status_code, await read(answer))
                    headers = {"x-hemostat-calibration": VERSION}
                    if self.streamed:
                        async with writer.open(headers):
                            await self._streamed(answer, writer)
                        return
                    response = Response(await self._collect(answer), headers=headers, media_type="application/json")
        except ReplicaLostError as error:
            logger.warning("verify process %s failed: %s", replica.id, error)
            detail = "The verify process of this model was lost."
            raise ApiError(ErrorCode.REPLICA_UNAVAILABLE, detail, retry_after_s=2) from None
        self.status = 200
        await response(scope, receive, send)

    async def _prompt(self) -> tuple[list[int], int]:
        """Token ids of the prompt, and how many more the context takes."""
        given = self.request.get("prompt")
        choice = self.gateway.replicas.choose(self.deployment, None)
        if choice is None:  # never: nothing was tried
            raise ReplicaLostError("no replica tokenizes")
        asked: dict[str, Any] = {"model": await self.gateway.upstream.served_name(choice.replica)}
        if isinstance(given, list):
            asked["prompt"] = ""  # for the context's length
        elif self.route == "chat":
            asked |= {name: self.request[name] for name in ("messages", *_TEMPLATE) if name in self.request}
        else:
            asked["prompt"] = given
            if "add_special_tokens" in self.request:
                asked["add_special_tokens"] = self.request["add_special_tokens"]
        status, body = await self.gateway.upstream.call(choice.replica, "/tokenize", asked)
        if status != 200:
            raise errors.from_replica(status, body, PROMPTS[self.route])
        told = json.loads(body)
        prompt = list(given) if isinstance(given, list) else list(told["tokens"])
        room = int(told["max_model_len"]) - len(prompt)
        if room < 1 or not prompt:
            raise ApiError(
                ErrorCode.CONTEXT_EXCEEDED,
                f"The prompt has {len(prompt)} tokens; from 1 to {told['max_model_len'] - 1} are taken.",
                param="messages" if self.route == "chat" else "prompt",
            )
        return prompt, room

    def _asked(self, prompt: list[int], room: int) -> dict[str, Any]:
        """The body that the verify process gets."""
        names = ("max_completion_tokens", "max_tokens")
        most = next((self.request[name] for name in names if self.request.get(name) is not None), None)
        if most is None:
            # The verify process may hold less than the replica that tokenized.
            asked = {"max_tokens": min(room, _DEFAULT_TOKENS[self.route]), "fewer": True}
        else:
            asked = {"max_tokens": most}
        sampling = {name: self.request[name] for name in _SAMPLING if self.request.get(name) is not None}
        salt = {"cache_salt": self._salt()} if self.key.owner else {}
        return {"temperature": 1.0, **sampling, "prompt": prompt, **asked, **salt}

    def _refused(self, status: int, body: bytes) -> ApiError:
        try:
            told = json.loads(body)
            reason = str(told.get("reason") or told.get("detail") or told["error"]["message"])
        except (ValueError, LookupError, TypeError, AttributeError):
            told, reason = {}, ""
        if status == 501:
            # It was ready a moment ago, and the record shows from the next second on whether it will be again.
            return _not_yet(self.deployment, reason or "its verify process verifies nothing")
        if status == 400 and told.get("code") == ErrorCode.CONTEXT_EXCEEDED:
            detail = f"{reason[:1].upper()}{reason[1:300]}."
            return ApiError(ErrorCode.CONTEXT_EXCEEDED, detail, status=400, param=PROMPTS[self.route])
        return errors.from_words(status, reason, None)

    # --- answers

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.route == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.deployment.name,
            "system_fingerprint": fingerprint(self.deployment, VERSION),
        }

    async def _collect(self, answer: httpx.Response) -> bytes:
        text: list[str] = []
        finish = Finish()
        async for line in _lines(answer):
            if isinstance(line, Finish):
                finish = line
            else:
                text.append(line)
        self._count(finish)
        content = "".join(text)
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish.reason}
        if self.route == "chat":
            choice["message"] = {"role": "assistant", "content": content, "refusal": None}
        else:
            choice["text"] = content
        head = self._head("chat.completion" if self.route == "chat" else "text_completion")
        return dump({**head, "choices": [choice], "usage": finish.usage, "hemostat": finish.hemostat})

    async def _streamed(self, answer: httpx.Response, writer: Writer) -> None:
        head = self._head("chat.completion.chunk" if self.route == "chat" else "text_completion")
        metrics = self.gateway.metrics
        before: float | None = None
        if self.route == "chat":
            await writer.event(dump(head | {"choices": [_choice({"delta": {"role": "assistant", "content": ""}})]}))
        async for line in _lines(answer):
            if isinstance(line, Finish):
                self._count(line)
                end: dict[str, Any] = {"delta": {}} if self.route == "chat" else {"text": ""}
                choices = [_choice(end, line.reason)]
                await writer.event(dump(head | {"choices": choices, "hemostat": line.hemostat}))
                if (self.request.get("stream_options") or {}).get("include_usage"):
                    await writer.event(dump(head | {"choices": [], "usage": line.usage}))
                continue
            now = time.perf_counter()
            if before is None:
                metrics.first_token.labels(self.deployment.name).observe(now - self.began)
            else:
                metrics.between_tokens.labels(self.deployment.name).observe(now - before)
            before = now
            self.spent += 1  # a block: at least one token
            part = {"delta": {"content": line}} if self.route == "chat" else {"text": line}
            await writer.event(dump(head | {"choices": [_choice(part)]}))
        self.status = 200
        await writer.done()

    def _count(self, finish: Finish) -> None:
        self._counted(*(finish.usage.get(f"{kind}_tokens", 0) for kind in ("prompt", "completion")))


def _choice(part: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, **part, "logprobs": None, "finish_reason": reason}


def _failed(told: str) -> ApiError:
    if "not finite" in told:
        detail = "The unmodified model's logits were not finite numbers for this request."
        return ApiError(ErrorCode.NONFINITE_LOGITS, detail, retry=False)
    return ApiError(ErrorCode.ENGINE_FAILED, "Verified decoding failed on this request.")


async def _lines(answer: httpx.Response) -> AsyncIterator[str | Finish]:
    """The text of each block, then the end. Raises ReplicaLostError if it does not come, ApiError for an error."""
    pending = b""
    async for chunk in answer.aiter_raw():
        *whole, pending = (pending + chunk).split(b"\n")
        if len(pending) > MAX_LINE_BYTES:
            raise ReplicaLostError("a line is too long")
        for raw in whole:
            if not raw.strip():
                continue
            try:
                line = json.loads(raw)
                if line.get("error"):
                    raise _failed(str(line["error"]))
                told: str | Finish = Finish.of(line) if line.get("finish_reason") else str(line["text"])
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise ReplicaLostError("a line of its answer cannot be read") from error
            yield told
            if isinstance(told, Finish):
                return
    raise ReplicaLostError("its answer has no end")
