"""What it takes to run the service; nothing here is part of it."""
