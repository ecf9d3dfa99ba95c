"""What README and the pages of the families write out by hand of the bench is what its CSV has."""

from pathlib import Path

from tests.bench.mitigation_page import read

ROOT = Path(__file__).parents[3]
FOUND = read()


def told(page: str) -> str:
    """A page's words, whatever lines they stand in."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def ratio(case: str, against: str, text: str = "wiki") -> float:
    """Of the two divergences on `text`, as it was measured where there is a bar, else of the numbers as they stand."""
    of = FOUND[case]
    return of.get(f"ratio_to_{against}_{text}", of[f"kl_{text}"] / FOUND[against][f"kl_{text}"])


def test_the_readme_tells_what_dynamic_scaling_leaves_and_that_it_takes_no_more_bytes() -> None:
    wiki, other = (100 * ratio("dynamic_4", "rtn_4", text) for text in ("wiki", "unfitted"))
    assert (
        f"Dynamic quantization scaling, for one, leaves {wiki:.0f} % of what round to nearest at 4 bits loses on "
        f"WikiText-2 and {other:.0f} % on other text, in the same bytes."
    ) in told("README.md")
    assert FOUND["dynamic_4"]["model_bytes"] == FOUND["rtn_4"]["model_bytes"]


def kl(case: str, text: str = "wiki") -> str:
    return f"{FOUND[case][f'kl_{text}']:.3g}"


def cell(case: str, metric: str) -> str:
    """A number with its interval, as the pages write it."""
    of = FOUND[case]
    return f"{of[metric]:.3g} [{of[f'{metric}_low']:.3g}, {of[f'{metric}_high']:.3g}]"


def removed(case: str, wound: str, text: str = "wiki", digits: int = 1) -> str:
    return f"{100 * (1 - ratio(case, wound, text)):.{digits}f}"


def removed_between(case: str, wound: str) -> str:
    """The interval of what is removed on WikiText-2."""
    high, low = (100 * (1 - FOUND[case][f"ratio_to_{wound}_wiki_{end}"]) for end in ("high", "low"))
    return f"[{high:.1f}, {low:.1f}]"


def test_dynamic_scaling_tells_what_blocks_and_mixed_widths_bring_and_what_other_widths_leave() -> None:
    page = told("docs/recipes/dynamic-scaling.md")
    for name, case in (
        ("blocks fitted (the default)", "dynamic_4"),
        ("mixed widths, layers alone", "dynamic_4_mixed"),
        ("layers alone (`block_epochs` 0)", "dynamic_4_layers"),
    ):
        base = "ratio_to_dynamic_4_layers_wiki"
        against = f"{cell(case, base)} " if base in FOUND[case] else ""
        seconds = f"{FOUND[case]['seconds']:.0f}"
        row = f"| {name} | {cell(case, 'kl_wiki')} | {against}| {cell(case, 'kl_unfitted')} | {seconds} |"
        assert row in page
    assert (
        f"At 3 bits the default leaves {kl('dynamic_3')} nats, with 8-bit weights and activations "
        f"{kl('dynamic_w8a8')}, with 4-bit weights and 8-bit activations {kl('dynamic_w4a8')}."
    ) in page
    assert (
        f"{ratio('dynamic_w8a8', 'smoothquant_8'):.3f} of SmoothQuant's divergence with 8-bit weights and activations"
    ) in page


def test_pruning_tells_how_much_more_a_pattern_costs_than_the_same_share_and_what_shares_by_outliers_bring() -> None:
    page = told("docs/recipes/prune.md")
    more = {name: f"{ratio(f'{name}_2:4', f'{name}_50'):.2f}" for name in ("magnitude", "sparsegpt", "ria", "wanda")}
    assert (
        f"on WikiText-2 2:4 costs {more['magnitude']} (magnitude), {more['sparsegpt']} (SparseGPT), "
        f"{more['ria']} (RIA) and {more['wanda']} times (Wanda) what the same share costs without a pattern."
    ) in page
    assert (
        f"takes magnitude from {kl('magnitude_50')} to {kl('magnitude_owl_50')} and leaves RIA ({kl('ria_50')}, "
        f"{kl('ria_owl_50')}) and SparseGPT ({kl('sparsegpt_50')}, {kl('sparsegpt_owl_50')}) where they were. With "
        f"`scope` `row`, magnitude loses {kl('magnitude_row_50')}."
    ) in page
    assert f"Wanda at 4:8 loses {kl('wanda_4:8')} nats, and {kl('wanda_owl_4:8')} where" in page


def test_repair_tells_what_the_closed_form_and_the_whole_take_away() -> None:
    page = told("docs/recipes/repair.md")
    for name, wound, rank in (
        ("RTN at 4 bits, mean rank 16", "rtn_4", 16),
        ("mean rank 64", "rtn_4", 64),
        ("Wanda at 50 %, mean rank 16", "wanda_50", 16),
        ("mean rank 64", "wanda_50", 64),
        ("two dropped layers, mean rank 64", "layers_14_15", 64),
    ):
        case = f"repair_{wound}_r{rank}_closed"
        on_wiki = f"{removed(case, wound)} % {removed_between(case, wound)}"
        other, seconds = removed(case, wound, "unfitted"), f"{FOUND[case]['seconds']:.0f}"
        assert f"| {name} | {on_wiki} | {other} % | {seconds} |" in page
    for name, wound, rank in (("44, and 16", "wanda_50", 16), ("32, and 32", "layers_14_15", 64)):
        case = f"repair_{wound}_r{rank}"
        asked = 100 * (1 - ratio(case, wound)) * 2 / 3
        on_both = f"{removed(case, wound)} % | {removed(case, wound, 'unfitted')} % | {asked:.1f} %"
        assert f"{name} that the reference wrote | {on_both} |" in page
    whole = "repair_rtn_4_r64"
    assert f"{removed(whole, 'rtn_4')} % {removed_between(whole, 'rtn_4')} removed." in page
    assert f"({removed(whole, 'rtn_4', 'unfitted')} % of {removed(whole, 'rtn_4')})" in page
    quick = FOUND["repair_rtn_4_r16"]["seconds"]
    assert f"{removed('repair_rtn_4_r16', 'rtn_4')} % of the divergence removed, {quick:.0f} s" in page
    assert f"of {FOUND['repair_wanda_50_r16']['seconds']:.0f} to write 16 windows." in page


def test_other_families_tell_ratios_of_the_bench() -> None:
    fp8 = [ratio(case, "fp8", text) - 1 for case in ("fp8_dynamic", "fp8_packed") for text in ("wiki", "unfitted")]
    assert f"add {min(fp8):.2f} to {max(fp8):.2f} of what FP8 weights cost" in told("docs/recipes/quantize.md")
    svdllm = FOUND["svdllm_5"]["kl_unfitted"] / FOUND["svdllm_5"]["kl_wiki"]
    assert (
        f"costs {kl('svdllm_5')} nats with `lowrank.svdllm`, and {svdllm:.1f} times as much on other text. Weights of "
        f"3 bits cost {kl('gptq_3')} by GPTQ and {kl('rtn_3')} by rounding."
    ) in told("docs/recipes/lowrank.md")
    low, high = (f"{FOUND['gradient_50'][f'ratio_to_wanda_50_unfitted_{end}']:.3g}" for end in ("low", "high"))
    on_other = f"{ratio('gradient_50', 'wanda_50', 'unfitted'):.3f}"
    assert f"half the weights cost {on_other} of what Wanda's do, but the interval, {low} to {high}," in told(
        "docs/recipes/gradient-pruning.md"
    )
    assert (
        f"RTN at 4 bits has {kl('rtn_4')} nats "
        f"[{FOUND['rtn_4']['kl_wiki_low']:.3g}, {FOUND['rtn_4']['kl_wiki_high']:.3g}] on WikiText-2 without and "
        f"{cell('rtn_4_then_tweak', 'kl_wiki')} with it, on other text {cell('rtn_4', 'kl_unfitted')} and "
        f"{cell('rtn_4_then_tweak', 'kl_unfitted')}"
    ) in told("docs/recipes/norm.md")
    assert (
        f"where pruning is the weaker (alone {kl('wanda_30')} nats per token; rounding {kl('rtn_4')}), rounding first "
        f"costs {kl('rtn_4_then_wanda_30')} and pruning first {kl('wanda_30_then_rtn_4')}"
    ) in told("docs/recipes.md")
