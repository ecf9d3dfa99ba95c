"""The `mitigate` job: diagnose the modification, try treatments by expected nats a byte, choose, and prove the
choice."""
