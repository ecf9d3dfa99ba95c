"""A CSV says where its numbers are from."""

from pathlib import Path

import pytest

from tests.bench.processor import name, row
from tests.bench.rows import Row, read, write

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R45
cpu MHz\t\t: 2600.000

processor\t: 1
model name\t: AMD EPYC 9R45
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\nCPU part\t: 0xd4f\n"


@pytest.mark.parametrize(
    ("cpuinfo", "told"),
    [
        (X86, "AMD EPYC 9R45"),
        ("model name\t:   Intel(R) Xeon(R)  Platinum,  8488C \n", "Intel(R) Xeon(R) Platinum 8488C"),
        (ARM, ""),
        ("", ""),
    ],
)
def test_a_processor_has_the_name_that_the_system_tells(cpuinfo: str, told: str) -> None:
    assert name(cpuinfo) == told


def test_its_row_has_name_kind_and_cores_and_is_read_back(tmp_path: Path) -> None:
    kind = "cpu x86_64 avx512+bf16 2 threads"
    made = row("serve", kind, X86, 2)
    assert made == Row("serve", "processor", f"AMD EPYC 9R45: {kind}", 2.0, "cores")
    assert row("serve", kind, ARM, 2).metric == kind
    write(tmp_path / "serve.csv", [made])
    assert (tmp_path / "serve.csv").read_text().splitlines()[1] == f"serve,processor,AMD EPYC 9R45: {kind},2,cores"
    assert read(tmp_path / "serve.csv") == [made]
