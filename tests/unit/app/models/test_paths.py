import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.errors import ErrorCode, HemostatError
from app.models.paths import below


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("s")
    (tmp_path / "rootless").mkdir()
    return root


def forbidden(root, relative):
    with pytest.raises(HemostatError) as caught:
        below(root, relative, pointer="/text/path")
    assert (caught.value.code, caught.value.status) == (ErrorCode.PATH_FORBIDDEN, 403)
    assert caught.value.pointer == "/text/path"


def test_what_stays_below_is_resolved(root):
    for relative in ("folder", "folder/a.txt", "./folder//a.txt", ".", "folder/", "not/there/yet.txt"):
        assert below(root, relative) == (root / relative).resolve()


def test_what_leaves_is_forbidden(root):
    for relative in ("/etc/passwd", "..", "../secret.txt", "folder/../../secret.txt", "folder/../folder/a.txt"):
        forbidden(root, relative)
    for relative in ("../rootless", "~/x", "", "a\0b", "folder\\..\\..\\secret.txt", "a" * 300, "\ud800"):
        forbidden(root, relative)


def test_a_link_within_the_root_is_followed(root):
    (root / "alias").symlink_to(root / "folder")
    assert below(root, "alias/a.txt") == root.resolve() / "folder" / "a.txt"


def test_a_link_out_of_the_root_is_forbidden(root):
    for number, target in enumerate(("../secret.txt", "/etc", "../rootless")):
        (root / f"folder/way{number}").symlink_to((root / target).resolve())
        forbidden(root, f"folder/way{number}")
        forbidden(root, f"folder/way{number}/x")


def test_a_loop_of_links_is_forbidden(root):
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    forbidden(root, "one/x")


@given(relative=st.text(st.sampled_from("ab./\\~\0 "), max_size=12))
def test_nothing_that_is_accepted_lies_outside(tmp_path_factory, relative):
    root = tmp_path_factory.getbasetemp()
    try:
        path = below(root, relative)
    except HemostatError as error:
        assert error.code is ErrorCode.PATH_FORBIDDEN
    else:
        assert path == root.resolve() or root.resolve() in path.parents
