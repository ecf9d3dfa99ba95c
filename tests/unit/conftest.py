"""The terminal's width is each test's own."""

import os
from importlib import import_module

# A console keeps the width that the environment tells when it is made, which is when this module is first imported:
# that may not be within a test that has set one, nor in a shell that exports its own.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
import_module("app.cli.output")
