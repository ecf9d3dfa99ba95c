"""The calibrated endpoint: OpenAI's routes before the replicas of the deployments."""
