import json

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.gateway.errors import ApiError, clean, envelope, from_replica, in_scope, invalid, is_ours, response


def test_openais_paths_are_known():
    ours = ("/v1/chat/completions", "/v1/models", "/v1/models/x/y", "/v1/embeddings", "/tokenize")
    others = ("/v1/diagnosis/jobs", "/v1/deployments", "/v1/modelsx", "/v1", "/metrics", "/", "")
    error = HemostatError(ErrorCode.UNAUTHORIZED, "No key.")
    assert [path for path in ours + others if is_ours(path)] == list(ours)
    assert [path for path in ours + others if in_scope({"path": path}, error) is not None] == list(ours)


def test_every_code_has_the_whole_envelope():
    for code in ErrorCode:
        answer = response(HemostatError(code, "What happened.", hint="What to do.", pointer="/a/b", retry_after_s=3))
        assert answer.status_code == CATALOGUE[code].status
        error = json.loads(bytes(answer.body))["error"]
        told = {"message": "What happened. What to do.", "param": "a.b", "code": code.value}
        assert error == told | {"type": error["type"]}
        assert answer.headers["retry-after"] == "3"


def test_clients_learn_whether_to_try_again():
    for error, kind, retry in (
        (HemostatError(ErrorCode.UNAUTHORIZED, "x"), "authentication_error", None),
        (HemostatError(ErrorCode.RATE_LIMITED, "x"), "rate_limit_error", "true"),
        (HemostatError(ErrorCode.INTERNAL, "x"), "server_error", "false"),
        (HemostatError(ErrorCode.UNAVAILABLE, "x"), "server_error", "true"),
        (ApiError(ErrorCode.NONFINITE_LOGITS, "x", retry=False), "server_error", "false"),
        (invalid("x", "n"), "invalid_request_error", None),
    ):
        assert envelope(error)["error"]["type"] == kind
        assert response(error).headers.get("x-should-retry") == retry


def vllm(message, code=400, param=None):
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": code}}).encode()


def test_what_a_replica_refuses_keeps_its_words_and_its_field():
    error = from_replica(400, vllm("temperature must be non-negative, got -3.0.", param="temperature"))
    assert (error.status, error.code, error.param) == (400, "invalid_request", "temperature")
    assert "non-negative" in error.detail
    unprocessable = from_replica(422, vllm("no", 422))
    assert (unprocessable.status, unprocessable.code) == (422, "invalid_request")


def test_a_context_that_is_too_long_has_a_code_of_its_own_and_our_words():
    """The limit is the deployment's (4,096 unless it was made with another one), and the model may have more."""
    for message, given, limit, param in (
        ("This model's maximum context length is 256 tokens. However, you requested 300.", None, "", "messages"),
        (
            "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input "
            "tokens, which exceeds this limit. (parameter=input_tokens, value=4097)",
            "input_tokens",
            "4096 tokens",
            "messages",
        ),
        ("max_tokens=3000 cannot be greater than max_model_len=256.", "max_tokens", "256 tokens", "max_tokens"),
        ("The decoder prompt is longer than the maximum model length of 64.", None, "64 tokens", "messages"),
    ):
        error = from_replica(400, vllm(message, param=given), "messages")
        assert (error.code, error.param) == ("context_exceeded", param)
        told = envelope(error)["error"]["message"]
        assert limit in told
        assert "4097" not in told
        assert "parameter=" not in told


def test_any_other_answer_is_an_error_too():
    for body in (b"", b"<html>", b"[]", b"{}", b'{"error": "Unauthorized"}', b'{"error": {}}'):
        for status in (400, 401, 404, 500, 503):
            error = from_replica(status, body)
            assert error.status >= 400
            assert error.status != 401, "the client's key is good"
            assert error.detail


def test_what_fails_within_a_replica_is_not_told():
    trace = 'Traceback (most recent call last):\n  File "/opt/x/engine.py", line 3, in run\n    boom\nKeyError: 1'
    error = from_replica(500, vllm(trace, 500))
    assert error.detail == "The replica failed on this request."
    told = clean(f"cannot: {trace} at 0x7f001122aabb of /home/ops/models/secret and http://host/a/b/c")
    for secret in ("/opt", "engine.py", "0x7f", "/home", "Traceback"):
        assert secret not in told
    assert len(clean("x" * 10_000)) == 2000
