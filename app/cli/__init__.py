"""The `hemostat` command. `app.cli.main` holds its commands."""
