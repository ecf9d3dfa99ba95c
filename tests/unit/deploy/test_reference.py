from deploy.reference import FOLDER, pages


def test_the_reference_is_what_the_code_makes() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    assert written == pages(), "run: make docs"
