"""Drops the markers of a lock that hold on every machine the lock is for; reads standard input, writes standard output.

uv puts the condition of `tool.uv.environments` behind each package, which says nothing and hides the markers that do.
"""

import itertools
import sys

from packaging.markers import Marker

ENVIRONMENTS = [
    {
        "python_full_version": version,
        "python_version": version.rpartition(".")[0],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
    }
    for version, machine in itertools.product(("3.11.0", "3.11.9", "3.12.0", "3.13.0"), ("x86_64", "aarch64"))
]

kept = True
for line in map(str.rstrip, sys.stdin):
    said = line
    if not line.startswith(" "):  # the lines behind a requirement are its hashes
        requirement, semicolon, marker = line.removesuffix(" \\").partition(" ; ")
        holds = [Marker(marker).evaluate(environment) for environment in ENVIRONMENTS] if semicolon else [True]
        kept = any(holds)
        said = f"{requirement} \\" if all(holds) else line
    if kept:
        sys.stdout.write(said + "\n")
