"""The `mitigate` job: diagnose the wound, try treatments by expected nats a byte, choose, and prove the choice."""
