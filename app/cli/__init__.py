"""The `hemostat` command. `app.cli.entry` begins it, `app.cli.main` holds its commands."""
