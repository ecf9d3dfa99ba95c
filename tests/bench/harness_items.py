"""Items on which `tests.bench.harness` compares: files in the fields of published data sets.

Sentences of the shipped task and others with WikiHow's brackets; questions with three to five choices, some of which
have more bytes than characters; word problems, and texts as models answer them.
"""

import json
from pathlib import Path
from typing import Any

from app.models.tasks.reading import SHIPPED

Row = dict[str, Any]
SHOTS = 2
CAPITALS = {
    "France": "Paris",
    "Iceland": "Reykjavík",
    "Brazil": "Brasília",
    "Colombia": "Bogotá",
    "Paraguay": "Asunción",
    "Togo": "Lomé",
    "Cameroon": "Yaoundé",
    "Maldives": "Malé",
    "Costa Rica": "San José",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Poland": "Warsaw (Warszawa)",
    "Romania": "Bucharest (București)",
    "Denmark": "Copenhagen (København)",
    "Greece": "Athens (Αθήνα)",
    "Russia": "Moscow (Москва)",
    "China": "Beijing (北京)",
    "Moldova": "Chișinău",
    "Tonga": "Nukuʻalofa",
}
BRACKETS = (
    ("Painting a wall", "[header] How to paint a wall [title] Cover the floor first.", "[step] you then open the can"),
    ("Baking bread", "A woman kneads dough on a table.  She puts it into the oven", "and SHE waits until it"),
    ("Home and Garden", "[header] How to water plants [title] Fill the can. [step] Carry it to the bed.", ""),
    ("Washing dishes", "A man fills the sink with hot water and soap. He", "takes a plate and"),
)
ENDINGS = (
    ["rubs it with a sponge. [title] Rinse it. [step] Let it dry.", "flies.", "[substeps] sings a song.", "is a king."],
    [
        "is brown and crisp.",
        "asks  for money.",
        "drives to work in the morning [unused] and never comes back.",
        "reads.",
    ],
)
# As models answer: the number after the mark, elsewhere, twice, with signs, in no form at all.
TEXTS = (
    " 3 + 4 = 7\n#### 7",
    " #### 7.",
    " #### 7.00",
    " #### -7",
    " #### 1,207 and more #### 8",
    " #### $7",
    " ####7",
    " #### seven",
    " She pays $1,207.50.",
    " She pays $1,207.",
    " It is 7, so 7.",
    " The answer is 7 .",
    " The answer is .7",
    " The answer is -$7",
    " 7%",
    " 7 apples, 3 of them red",
    " seven",
    "",
    "\n",
    " ...",
    " 7\nQuestion: How many are 9?\nAnswer: 9\n#### 9",
    " 7</s> 9",
    " 7<|im_end|> 9<|im_end|>",
    " Question: 9",
    " 1 207",
    " 1.207,00",
    " 7\n\n#### 7\n",
    " #### 7\n#### 9",
    " #### 007",
    " 7e3",
    " ٧",
    " ½ or 0.5",
    " [invalid]",
    " x = 7; y = -12",
    " 12-7=5",
    "    return 7\n\ndef other():\n    return 9\n",
    "    return 7\n# 9\nprint(9)",
    "    return 7\nclass A: pass\nif 9: pass",
)
TARGETS = ("It is so.\n#### 7", "#### 1,207", "#### -7", "#### 9", "#### 5", "Half of it.\n#### 0.5", "#### $1207.50")


def write_items(folder: Path) -> None:
    """`hellaswag.jsonl`, `arc.jsonl`, and `mmlu.jsonl` and `gsm8k.jsonl` with `-shown.jsonl` beside."""
    _write(folder / "hellaswag.jsonl", [*_shipped(16), *_brackets()])
    _write(folder / "arc.jsonl", _questions())
    letters = _lettered()[::4]
    _write(folder / "mmlu.jsonl", letters[SHOTS:])
    _write(folder / "mmlu-shown.jsonl", letters[:SHOTS])
    problems = [_problem(number) for number in range(10 + SHOTS)]
    _write(folder / "gsm8k.jsonl", problems[SHOTS:])
    _write(folder / "gsm8k-shown.jsonl", problems[:SHOTS])


def _write(file: Path, rows: list[Row]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _shipped(count: int) -> list[Row]:
    rows = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    return rows[:: len(rows) // count][:count]


def _brackets() -> list[Row]:
    """Each beginning with each list of endings."""
    return [
        {
            "ind": f"brackets-{number}-{index}",
            "activity_label": activity,
            "ctx_a": first,
            "ctx_b": second,
            "endings": endings,
            "label": (number + index) % len(endings),
        }
        for number, (activity, first, second) in enumerate(BRACKETS)
        for index, endings in enumerate(ENDINGS)
    ]


def _choices(number: int, names: list[str]) -> list[str]:
    """The right one and two to four others, the right one at a place that changes."""
    count = 3 + number % 3
    others = [names[(number + 3 * step) % len(names)] for step in range(1, count)]
    place = number % count
    return [*others[:place], names[number], *others[place:]]


def _questions() -> list[Row]:
    rows = []
    names = list(CAPITALS.values())
    for number, (country, capital) in enumerate(CAPITALS.items()):
        texts = _choices(number, names)
        labels = list("ABCDE" if number % 2 else "12345")[: len(texts)]
        rows.append(_question(f"capital-{number}", f"What is the capital of {country}?", texts, labels, capital))
    for number in range(6):
        total = 11 + 7 * number
        names = [f"{total + shift} apples" for shift in range(20)]
        texts = _choices(number, names)
        asked = f"Ann has {total} apples and buys {number}. How many has she?"
        rows.append(_question(f"sum-{number}", asked, texts, list("ABCDE")[: len(texts)], names[number]))
    return rows


def _question(id_: str, asked: str, texts: list[str], labels: list[str], right: str) -> Row:
    return {
        "id": id_,
        "question": asked,
        "choices": {"text": texts, "label": labels},
        "answerKey": labels[texts.index(right)],
    }


def _lettered() -> list[Row]:
    names = list(CAPITALS.values())
    rows = []
    for number, (country, capital) in enumerate([*CAPITALS.items(), *CAPITALS.items()]):
        others = [names[(number + step) % len(names)] for step in (4, 7, 9)]
        place = (3 * number + number // len(names)) % 4
        choices = [*others[:place], capital, *others[place:]]
        asked = f" Which city is the capital of {country}? "
        if number >= len(names):
            asked = f"The government of {country} has its seat in"
        rows.append({"question": asked, "subject": "anatomy", "choices": choices, "answer": place})
    return rows


def _problem(number: int) -> Row:
    first, second = 12 + 5 * number, 3 + number
    total = first + second
    return {
        "question": f"Ben has {first} coins and finds {second} more. How many coins does he have?",
        "answer": f"Ben has {first} + {second} = <<{first}+{second}={total}>>{total} coins.\n#### {total}",
    }
