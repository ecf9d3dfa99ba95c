from app.models.nearest import nearest, suggestion


def test_the_nearest_name_is_found_without_regard_to_case() -> None:
    assert nearest("q_prj", ["q_proj", "down_proj", "lm_head"]) == "q_proj"
    assert nearest("LM-Head", ["q_proj", "lm_head"]) == "lm_head"
    assert nearest("zzz", ["q_proj", "lm_head"]) is None
    assert nearest("x", []) is None


def test_a_suggestion_names_what_is_valid() -> None:
    assert suggestion("smolm2", ["smollm2", "llama"]) == "did you mean 'smollm2'? valid: llama, smollm2"
    assert suggestion("x", []) == "there is none"
    assert suggestion("q9", [f"name{i:02}" for i in range(20)]).endswith("name11, … (20 in all)")
