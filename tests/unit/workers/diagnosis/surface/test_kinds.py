"""What an interaction is said to be: a departure, none within a margin, or not known."""

from tests.support.surface_reports import surface_request, surface_table


def table(margin, **drawn):
    return surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), margin=margin), documents=32, **drawn)


def kinds(margin, **drawn):
    return {row.kind for row in table(margin, **drawn).interactions()}


def test_what_is_not_shown_to_depart_adds_up_only_within_a_margin_that_holds_its_interval():
    assert kinds(0.5, interaction=0.0) == {"additive_within_margin"}
    assert kinds(1e-9, interaction=0.0) == {"no_departure_shown"}
    rows = table(None, interaction=0.0).interactions()
    for row in rows:
        inside = row.nats.ci[0] > -0.01 and row.nats.ci[1] < 0.01
        assert row.within_margin == inside, "without one the margin is where mild damage begins"
        assert row.kind == ("additive_within_margin" if inside else "no_departure_shown")


def test_a_departure_is_told_though_it_is_smaller_than_the_margin():
    rows = table(10.0, interaction=0.8).interactions()
    assert "compounds" in {row.kind for row in rows}
    assert all(row.within_margin for row in rows)
    assert "overlaps" in kinds(10.0, interaction=-0.8)


def test_one_document_of_one_window_shows_nothing():
    found = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), margin=10.0), documents=1)
    assert {(row.kind, row.within_margin) for row in found.interactions()} == {("no_departure_shown", None)}
