"""What a dry run says: to a person in units that are read at a glance, to a program as it came."""

from app.cli.measuring import print_estimate

ESTIMATE = {
    "documents": 218,
    "tokens": 42_615,
    "reference_store_bytes": 98_184_960,
    "checkpoint_bytes": 0,
    "seconds": 40_623,
    "assumptions": ["4 bytes of text a token"],
}


def test_a_person_reads_time_and_sizes_with_their_units(capsys):
    print_estimate(ESTIMATE, as_json=False)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if len(row) == 2] == [
        ["documents", "218"],
        ["tokens", "about 42,615"],
        ["reference store", "about 93.6 MiB"],  # 98,184,960 / 2^20 = 93.64
        ["checkpoints", "0 B"],
        ["time", "about 11 h 17 min"],  # 40,623 s = 11 h 17 min 3 s
    ]
