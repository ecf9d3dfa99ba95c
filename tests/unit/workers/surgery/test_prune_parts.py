import torch

from workers.surgery.prune_parts import energy_of_parts, kept_parts, spread


def test_the_energy_of_a_part_is_what_it_adds_to_the_output():
    generator = torch.Generator().manual_seed(0)
    weight_OI, x_TI = torch.randn(5, 6, generator=generator), torch.randn(40, 6, generator=generator)
    found = energy_of_parts(weight_OI, x_TI.T @ x_TI / 40, 3)
    expected = [
        float((x_TI[:, start : start + 2] @ weight_OI[:, start : start + 2].T).square().sum(1).mean())
        for start in (0, 2, 4)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_least_go_and_the_rest_keep_their_order():
    kept = kept_parts(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2)
    assert kept.tolist() == [0, 2]
    assert kept_parts(torch.tensor([1.0, 1.0, 1.0]), 1).tolist() == [1, 2]
    assert spread(kept, 3).tolist() == [0, 1, 2, 6, 7, 8]
