from app.contracts.deployment import Deployment
from app.deployments import examples
from app.deployments.routes import targets_of


def test_a_target_a_url_with_its_path_and_what_is_no_url_left_out():
    made = Deployment.model_validate(examples.READY)
    (replica,) = made.running
    urls = ("http://127.0.0.1:1/metrics", "https://host:2", "unix:///x", "")
    one = made.model_copy(update={"running": (replica.model_copy(update={"metrics_urls": urls}),)})
    groups = targets_of([one])
    assert [
        (group["targets"], group["labels"]["__scheme__"], group["labels"]["__metrics_path__"]) for group in groups
    ] == [(["127.0.0.1:1"], "http", "/metrics"), (["host:2"], "https", "/metrics")]
    assert {(group["labels"]["deployment"], group["labels"]["role"]) for group in groups} == {(made.name, "serve")}
