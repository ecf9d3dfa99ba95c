"""What the dearest constraints that the gateway takes cost to compile: `python -m tests.bench.grammars`.

Appends rows to hostile.csv. The vocabulary is the demo model's; each case is compiled by xgrammar as vLLM does, with
eight threads and no cache.
"""

import json
import time

import xgrammar
from transformers import AutoTokenizer

from app.gateway.bounds import check
from tests.bench.cases import MODEL
from tests.support import hostile
from tests.unit.app.gateway.test_patterns import ARITHMETIC, having, named, regex, string

NUMBER = {"type": "number", "minimum": -12345.678123, "maximum": 98765.4321987}

CASES = {
    "max_length": having(string(maxLength=100_000)),
    "places_of_any_character": regex(".{128}" * 2),
    "empty_parts_in_a_row": regex("[^x]?" * 23),
    "narrow_classes": having(*[string(pattern="^[a-z]{1,127}$")] * 6),
    "optional_properties": having(*[string()] * 512),
    "references": having(*[{"$ref": "#/$defs/n"}] * 512, **{"$defs": {"n": {"type": "array", "items": string()}}}),
    "formats": having(*[string(format="uri-template")] * 15),
    "formats_among_properties": having(*[string(format="uri-template")] * 5, *[string()] * 470),
    "bounds_of_numbers": having(*[NUMBER] * 49),
    "formats_and_bounds": having(*[string(format="uri-template")] * 5, *[NUMBER] * 10, *[string()] * 380),
    "open_properties": having(*[string()] * 105, additionalProperties=True),
    "long_names": named(64, 600),
    "names": named(400, 50),
    "counted_properties": having(*[string()] * 85, maxProperties=42),
    "grammar": {"structured_outputs": {"grammar": ARITHMETIC}},
}


def compiled(compiler: xgrammar.GrammarCompiler, body: dict[str, object]) -> None:
    """As vLLM compiles the constraint of this request."""
    outputs = body.get("structured_outputs")
    if isinstance(outputs, dict) and "regex" in outputs:
        compiler.compile_regex(outputs["regex"])
    elif isinstance(outputs, dict):
        compiler.compile_grammar(outputs["grammar"])
    else:
        compiler.compile_json_schema(json.dumps(body["response_format"]["json_schema"]["schema"]))  # type: ignore[index]


def main() -> None:
    """Measures each case once and appends its rows."""
    info = xgrammar.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(MODEL))
    rows = []
    for name, body in CASES.items():
        check(body)  # it is taken
        compiler = xgrammar.GrammarCompiler(info, max_threads=8, cache_enabled=False)
        cpu, wall = time.process_time(), time.perf_counter()
        compiled(compiler, body)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{name}: {cpu:.2f} s of processors, {wall:.2f} s")  # noqa: T201 - a script
        rows += [
            ("hostile", f"grammar_{name}", "compile_cpu", round(cpu, 2), "s"),
            ("hostile", f"grammar_{name}", "compile_wall", round(wall, 2), "s"),
        ]
    hostile.append(rows)


if __name__ == "__main__":
    main()
