import json
import pickle

from redis.exceptions import BusyLoadingError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.error_guide import GUIDE
from app.problems import FieldError, Problem, RequestError, document, redis_is_away, response

SCOPE = {"type": "http", "path": "/v1/diagnosis/jobs", "hemostat.request_id": "abc"}


def test_every_code_makes_a_whole_problem():
    for code in ErrorCode:
        answer = response(SCOPE, HemostatError(code, "What happened."))
        problem = Problem.model_validate_json(answer.body)
        assert answer.status_code == problem.status == CATALOGUE[code].status
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem.code, problem.type, problem.hint) == (code.value, f"/errors/{code.value}", GUIDE[code])
        assert (problem.instance, problem.request_id, problem.detail) == (SCOPE["path"], "abc", "What happened.")


def test_each_fault_of_a_request_is_listed_by_its_place():
    faults = [
        FieldError(ErrorCode.UNKNOWN_FIELD, "One.", "Do so.", "/a"),
        FieldError(ErrorCode.INVALID_REQUEST, "Two.", parameter="limit"),
    ]
    problem = document(SCOPE, RequestError(faults))
    assert (problem["code"], problem["pointer"], problem["detail"]) == (
        "unknown_field",
        "/a",
        "One. Also in limit: Two.",
    )
    assert problem["errors"] == [
        {"code": "unknown_field", "detail": "One.", "hint": "Do so.", "pointer": "/a"},
        {"code": "invalid_request", "detail": "Two.", "hint": GUIDE[ErrorCode.INVALID_REQUEST], "parameter": "limit"},
    ]


def test_the_list_is_bounded():
    error = RequestError([FieldError(ErrorCode.INVALID_REQUEST, "x", pointer=f"/{i}") for i in range(1000)])
    assert len(error.errors) == 50
    assert error.detail == "x Also at /1: x Also at /2: x Also at /3: x And 996 more."


def test_waiting_is_told_in_a_header():
    answer = response(SCOPE, HemostatError(ErrorCode.RATE_LIMITED, "x", retry_after_s=7))
    assert answer.headers["retry-after"] == "7"
    assert "retry-after" not in response(SCOPE, HemostatError(ErrorCode.INTERNAL, "x")).headers


def test_a_lone_surrogate_of_the_client_cannot_break_the_answer():
    answer = response(SCOPE, HemostatError(ErrorCode.INVALID_REQUEST, "bad \ud800 name"))
    assert json.loads(answer.body)["detail"] == "bad ? name"


def test_a_request_error_crosses_a_process_border_whole():
    error = RequestError([FieldError(ErrorCode.UNKNOWN_KIND, "x", "h", "/kind")])
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.pointer, copy.errors) == (error.code, error.pointer, error.errors)


def test_only_what_passes_by_itself_counts_as_away():
    for error, away in (
        (RedisConnectionError("refused"), True),
        (BusyLoadingError("loading"), True),
        (RedisTimeoutError("slow"), True),
        (OutOfMemoryError("OOM"), True),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (ResponseError("WRONGTYPE Operation against a key"), False),
        (RedisError("other"), False),
    ):
        assert redis_is_away(error) is away
