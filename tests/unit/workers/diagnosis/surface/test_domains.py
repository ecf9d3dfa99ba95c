"""Interactions domain by domain: each says what a surface of its documents alone would say."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.surface_reports import surface_request, surface_table
from workers.diagnosis.surface.report import domains
from workers.diagnosis.surface.slices import TOO_FEW
from workers.diagnosis.surface.table import Table
from workers.measuring.points.record import WindowSums

REQUEST = surface_request(sparsities=(0.3, 0.6), bits=(6, 4))


def of(table, chosen=None):
    return domains(table, table.chosen() if chosen is None else chosen, check_cancelled=lambda: None)


def alone(table, name):
    """The same points over the documents of one domain, and nothing else."""
    kept = [index for index, domain in enumerate(table.domain_D) if domain == name]

    def cut(record):
        sums = {field: tuple(getattr(record.sums, field)[index] for index in kept) for field in WindowSums.model_fields}
        return record.model_copy(update={"sums": WindowSums(**sums)})

    return Table(table.request, table.cells, [cut(record) for record in table.records], np.arange(len(kept)))


@pytest.mark.parametrize("name", ["prose", "code", "chat"])
def test_a_domain_says_what_its_documents_alone_say(name):
    table = surface_table(REQUEST, documents=32)
    found = of(table)[name]
    only = alone(table, name)
    assert found.interactions == only.interactions()
    chosen = table.chosen()
    assert found.kl_by_setting == tuple(only.kl_means())
    assert found.kl == found.kl_by_setting[chosen]
    assert found.kl.mean == pytest.approx(sum(only.records[chosen].sums.kl) / found.tokens, rel=1e-12)
    assert found.documents == len(only.document_W) and found.tokens == 160 * found.documents
    assert found.note == ""


def test_the_average_is_the_mean_over_the_settings_of_both_knobs():
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), orders="both"), documents=32)
    for name, found in of(table).items():
        losses = {
            (cell.first, cell.second): np.array(record.sums.loss)[np.array(table.domain_D) == name]
            for cell, record in zip(table.cells, table.records, strict=True)
            if cell.order == "as given"
        }
        told = [losses[p, q] - losses[p, 0] - losses[0, q] + losses[0, 0] for p in (1, 2) for q in (1, 2)]
        assert found.average.mean == pytest.approx(float(np.mean(told)) / 160, rel=1e-9)
        low, high = found.average.ci
        assert low < found.average.mean < high


def test_what_compounds_in_one_domain_is_told_there_alone():
    table = surface_table(REQUEST, documents=40, interaction=0.0)
    code = np.array(table.domain_D) == "code"

    def worse(cell, record):
        if not (cell.first and cell.second):
            return record
        loss = np.array(record.sums.loss) + np.where(code, 160 * 0.3, 0.0)
        return record.model_copy(update={"sums": record.sums.model_copy(update={"loss": tuple(loss.tolist())})})

    records = [worse(cell, record) for cell, record in zip(table.cells, table.records, strict=True)]
    found = of(replace(table, records=records))
    assert {row.kind for row in found["code"].interactions} == {"compounds"}
    assert found["code"].average.mean == pytest.approx(0.3, abs=0.01)
    assert {row.kind for row in found["prose"].interactions}.isdisjoint({"compounds"})


def test_a_domain_of_few_documents_has_means_and_says_so():
    table = surface_table(REQUEST, documents=16)
    found = of(table)
    assert (found["prose"].note, found["code"].note) == ("", TOO_FEW)
    assert found["code"].documents == 4
    assert found["code"].average.mean is not None and found["code"].average.ci is None
    assert found["code"].kl.mean is not None and found["code"].kl.ci is None
    assert found["code"].interactions == ()


def test_a_domain_without_a_usable_token_is_left_out():
    table = surface_table(REQUEST, documents=32)
    chat = np.array(table.domain_D) == "chat"

    def emptied(record):
        sums = {
            field: tuple(np.where(chat, 0, getattr(record.sums, field)).tolist()) for field in WindowSums.model_fields
        }
        return record.model_copy(update={"sums": WindowSums(**sums)})

    assert set(of(replace(table, records=[emptied(record) for record in table.records]))) == {"prose", "code"}
