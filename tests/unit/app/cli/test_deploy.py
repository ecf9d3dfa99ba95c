import pytest
from typer.testing import CliRunner

from app.cli.main import app
from tests.unit.app.cli.conftest import Recorder


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("good", "good"),
        ("good#1", "good%231"),  # a fragment is not sent: `good` would be deleted
        ("good?x", "good%3Fx"),
        ("../diagnosis/jobs/a", "..%2Fdiagnosis%2Fjobs%2Fa"),
    ],
)
def test_what_is_deleted_is_what_was_named(recorder: Recorder, name: str, path: str) -> None:
    done = CliRunner().invoke(app, ["deploy", "delete", name, "--url", recorder.url])
    assert done.exit_code == 0, done.output
    assert recorder.asked == [("DELETE", f"/v1/deployments/{path}")]


def test_a_promotion_names_its_deployment(recorder: Recorder) -> None:
    CliRunner().invoke(app, ["deploy", "promote", "good#1", "identity", "--url", recorder.url])
    assert recorder.asked == [("POST", "/v1/deployments/good%231/promote")]
