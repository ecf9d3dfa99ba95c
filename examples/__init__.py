"""What can be done with Hemostat, ready to run."""
