"""The paper's claims, tested on the demo model: `make paper` measures them and writes docs/paper.md.

`jobs/` holds requests as the service takes them, `claims/` what each claim says, which jobs measure it, and the rule
that decides it; `rulings/` are those rules as code. A new claim is a file in `claims/`, a function in `rulings/`, and
whatever job is not there yet.
"""
