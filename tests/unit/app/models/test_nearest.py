from app.models.nearest import meant, nearest, suggestion


def test_the_nearest_name_is_found_without_regard_to_case():
    assert nearest("q_prj", ["q_proj", "down_proj", "lm_head"]) == "q_proj"
    assert nearest("LM-Head", ["q_proj", "lm_head"]) == "lm_head"
    assert nearest("zzz", ["q_proj", "lm_head"]) is None
    assert nearest("x", []) is None


def test_a_suggestion_names_what_is_valid():
    assert suggestion("smolm2", ["smollm2", "llama"]) == "did you mean 'smollm2'? valid: llama, smollm2"
    assert suggestion("x", []) == "there is none"
    assert suggestion("q9", [f"name{i:02}" for i in range(20)]).endswith("name15, … (20 in all)")


def test_names_that_are_as_near_are_all_named() -> None:
    valid = ["k_bits", "layers", "v_bits", "dtype"]
    assert meant("bits", valid) == "did you mean 'k_bits' or 'v_bits'?"
    assert suggestion("bits", valid) == "did you mean 'k_bits' or 'v_bits'? valid: dtype, k_bits, layers, v_bits"
    assert meant("bts", ["b_ts", "c_ts", "bits"]) == "did you mean 'b_ts' or 'bits'?"
    assert meant("name", ["name1", "name2", "name3"]) == "did you mean 'name1', 'name2' or 'name3'?"
    assert meant("v_bit", valid) == "did you mean 'v_bits'?"
    # where none stands out none is named
    assert meant("name", [f"name{number}" for number in range(5)]) == ""
    assert meant("zzz", ["q_proj"]) == ""
