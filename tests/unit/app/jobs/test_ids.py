import time

from app.jobs.ids import is_job_id, new_job_id


def test_ids_of_one_process_rise_even_within_a_millisecond():
    made = [new_job_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_an_id_sorts_after_one_made_earlier():
    first = new_job_id()
    time.sleep(0.002)
    assert first[:15] < new_job_id()[:15]


def test_only_well_formed_ids_are_ids():
    good = new_job_id()
    assert is_job_id(good)
    for bad in (
        "",
        "diag_",
        good + "0",
        good[:-1],
        good.lower(),
        "job_" + good[5:],
        good[:-1] + "U",
        good + "\n",
        "../" + good,
    ):
        assert not is_job_id(bad), bad
