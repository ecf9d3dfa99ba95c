from app.cli.serve import demo_request
from app.contracts.deployment import DeploymentRequest


def test_every_request_of_the_demo_is_scored_again():
    request = demo_request()
    assert request.shadow_rate == 1.0
    assert DeploymentRequest.model_fields["shadow_rate"].default < 0.1, "others have the default"
