import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import FileText
from app.settings import Settings
from workers.text.documents import TextDocument
from workers.text.files import load_files

Make = Callable[..., Settings]


def source(path: str, domain: str = "text") -> FileText:
    return FileText(source="file", path=path, domain=domain)


def write(root: Path | None, name: str, data: str | bytes) -> Path:
    assert root is not None
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(path: str, settings: Settings) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        load_files(source(path), settings=settings)
    assert caught.value.pointer == "/text/path"
    return caught.value


def test_a_txt_file_is_one_document_kept_as_it_is(settings: Make) -> None:
    use = settings()
    write(use.text_root, "a/one.txt", "\ufefffirst line\r\n\n  second — line \n")
    assert load_files(source("a/one.txt", "letters"), settings=use) == [
        TextDocument("a/one.txt", "letters", text="first line\r\n\n  second — line \n")
    ]


def test_a_jsonl_file_holds_a_document_a_line_with_its_own_domain_or_the_source_s(settings: Make) -> None:
    use = settings()
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    lines = [{"id": "x", "text": "one two"}, {"id": "y", "domain": "chat", "messages": chat}]
    write(use.text_root, "d.jsonl", json.dumps(lines[0]) + "\n\n  \n" + json.dumps(lines[1]))
    first, second = load_files(source("d.jsonl", "prose"), settings=use)
    assert (first.id, first.domain, first.text) == ("x", "prose", "one two")
    assert (second.id, second.domain) == ("y", "chat")
    assert [message.content for message in second.messages] == ["hi", "hello"]


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.jsonl"])
def test_a_pipe_in_a_folder_is_not_waited_for(settings: Make, name: str) -> None:
    use = settings()
    path = write(use.text_root, "c/a.txt", "one two").with_name(name)
    os.mkfifo(path)
    error = refused("c", use)
    assert error.code is ErrorCode.TEXT_NOT_FOUND
    assert f"c/{name}" in error.detail


def test_a_folder_stands_for_all_its_files_in_order_of_path(settings: Make) -> None:
    use = settings()
    write(use.text_root, "c/b.txt", "two")
    write(use.text_root, "c/a/z.txt", "one")
    write(use.text_root, "c/c.jsonl", '{"id": "three", "text": "3"}\n{"id": "four", "text": "4"}\n')
    write(use.text_root, "c/notes.md", "passed over")
    write(use.text_root, "c/.hidden.txt", "passed over")
    write(use.text_root, "c/.git/x.txt", "passed over")
    assert [document.id for document in load_files(source("c"), settings=use)] == [
        "c/a/z.txt",
        "c/b.txt",
        "three",
        "four",
    ]


def test_without_a_text_root_every_path_is_refused(settings: Make) -> None:
    error = refused("a.txt", settings(text_root=None))
    assert error.code is ErrorCode.PATH_FORBIDDEN
    assert "HEMOSTAT_TEXT_ROOT" in error.hint


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "a/../../secret.txt", "a\0.txt"])
def test_a_path_out_of_the_root_is_refused(path: str, settings: Make) -> None:
    use = settings()
    write(use.text_root, "../secret.txt", "secret")
    assert refused(path, use).code is ErrorCode.PATH_FORBIDDEN


def test_a_link_out_of_the_root_is_refused_alone_and_within_a_folder(settings: Make) -> None:
    use = settings()
    outside = write(use.text_root, "../secret.txt", "secret")
    assert use.text_root is not None
    write(use.text_root, "c/a.txt", "fine")
    (use.text_root / "c" / "b.txt").symlink_to(outside)
    assert refused("c/b.txt", use).code is ErrorCode.PATH_FORBIDDEN
    assert refused("c", use).code is ErrorCode.PATH_FORBIDDEN


def test_a_linked_folder_is_not_walked_into(settings: Make) -> None:
    use = settings()
    write(use.text_root, "../outside/secret.txt", "secret")
    write(use.text_root, "c/a.txt", "fine")
    (use.text_root / "c" / "more").symlink_to(use.text_root.parent / "outside")
    assert [document.id for document in load_files(source("c"), settings=use)] == ["c/a.txt"]


def test_what_is_not_there_or_empty_is_not_found(settings: Make) -> None:
    use = settings()
    assert use.text_root is not None
    (use.text_root / "empty").mkdir()
    assert refused("nowhere.txt", use).code is ErrorCode.TEXT_NOT_FOUND
    assert refused("empty", use).code is ErrorCode.TEXT_NOT_FOUND
    write(use.text_root, "blank.jsonl", "\n\n")
    assert refused("blank.jsonl", use).code is ErrorCode.TEXT_NOT_FOUND


def test_another_kind_of_file_is_refused(settings: Make) -> None:
    use = settings()
    write(use.text_root, "a.pdf", b"%PDF")
    error = refused("a.pdf", use)
    assert error.code is ErrorCode.DOCUMENT_NOT_TEXT
    assert ".jsonl" in error.hint


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.txt", b"ab\xffcd", "a.txt is not UTF-8: byte 2"),
        ("a.txt", "nul \0 byte", "'a.txt' holds a NUL"),
        ("a.jsonl", b'{"id": "ok", "text": "fine"}\n{"id": "\xff"}', "a.jsonl line 2 is not UTF-8"),
        ("a.jsonl", '{"id": "ok", "text": "fine"}\n\nsecret words', "a.jsonl line 3 is not JSON"),
        ("a.jsonl", '{"id": "a", "text": "secret \\ud800 words"}', "a.jsonl line 1 is not JSON"),
        ("a.jsonl", '{"id": "a", "text": "secret \\u0000 words"}', "'a' holds a NUL"),
    ],
)
def test_what_is_not_text_is_named_by_file_and_line(name: str, data: str | bytes, told: str, settings: Make) -> None:
    use = settings()
    write(use.text_root, name, data)
    error = refused_without_pointer(name, use)
    assert error.code is ErrorCode.DOCUMENT_NOT_TEXT
    assert told in error.detail
    assert "secret" not in error.detail


def refused_without_pointer(path: str, settings: Settings) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        load_files(source(path), settings=settings)
    return caught.value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "a", "txet": "secret words"}', "txet"),
        ('{"text": "secret words"}', "id: Field required"),
        ('{"id": "a", "text": "secret words", "messages": []}', "messages"),
        ('{"id": "a"}', "either text or messages"),
        ('["secret words"]', "object"),
    ],
)
def test_a_line_that_is_no_document_says_what_is_wrong_but_not_what_it_holds(
    line: str, told: str, settings: Make
) -> None:
    use = settings()
    write(use.text_root, "a.jsonl", '{"id": "ok", "text": "fine"}\n' + line)
    error = refused("a.jsonl", use)
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "a.jsonl line 2" in error.detail
    assert told in error.detail
    assert "secret" not in error.detail


def test_a_text_above_the_limit_is_refused_before_it_is_read_whole(settings: Make) -> None:
    use = settings(max_body_bytes=1024)
    write(use.text_root, "a.txt", "x" * 1025)
    assert refused("a.txt", use).code is ErrorCode.BODY_TOO_LARGE
    write(use.text_root, "b.jsonl", '{"id": "a", "text": "' + "x" * 2000 + '"}')
    assert refused("b.jsonl", use).code is ErrorCode.BODY_TOO_LARGE
    write(use.text_root, "c/1.txt", "x" * 600)
    write(use.text_root, "c/2.txt", "x" * 600)
    assert refused("c", use).code is ErrorCode.BODY_TOO_LARGE
    write(use.text_root, "d/1.txt", "x" * 512)
    write(use.text_root, "d/2.txt", "x" * 512)
    assert len(load_files(source("d"), settings=use)) == 2


def test_it_tells_how_far_it_is_and_stops_when_told(settings: Make) -> None:
    use = settings()
    for number in range(4):
        write(use.text_root, f"c/{number}.txt", "some text")
    told: list[tuple[str, int, int]] = []

    class StoppedError(Exception):
        pass

    def check() -> None:
        if len(told) == 2:
            raise StoppedError

    load_files(source("c"), settings=use, progress=lambda *step: told.append(step))
    assert told == [("text", done, 4) for done in range(5)]
    told.clear()
    with pytest.raises(StoppedError):
        load_files(source("c"), settings=use, progress=lambda *step: told.append(step), check_cancelled=check)
