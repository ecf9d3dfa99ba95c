"""Other languages than English, by script and by the small words of a paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from workers.text.token_classes.code import code_spans
from workers.text.token_classes.json_text import json_spans
from workers.text.token_classes.text import Mask, Span, TokenText

FEWEST_WORDS = 2
ENGLISH = "english"
GERMAN = "german"
OTHER_SCRIPT = "other script"
# Words that no other language of the list has, or no language that is written so often.
SMALL_WORDS: dict[str, str] = {
    ENGLISH: (
        "the of and to that is was for it with as his her on be at by this had not are but from or have an they "
        "which you were there been their has would who will more no if out so said what when we about them can "
        "only other into"
    ),
    GERMAN: (
        "der das und nicht ist ein eine mit von sich den dem des auf für auch es als wie dass sie er wir ich wird "
        "im zum zur einen einem einer nach bei aus noch nur oder aber war sind haben hat über vor kann wenn"
    ),
    "french": (
        "de en un on à si a le la les des du et une est que qui dans pour pas sur au aux avec ce cette il elle "
        "nous vous je ne se son sa ses mais ou où par plus comme être était sont leur"
    ),
    "spanish": (
        "de en la un al a si el los las del y una es que por con para no se lo su como más pero sus le ya este "
        "porque esta entre cuando muy sin sobre también hasta hay donde"
    ),
    "italian": (
        "la le un in i a se da si il lo gli della dei delle e una è che di per non con sono più ma come anche nel "
        "nella questo questa alla dal al ho era"
    ),
    "portuguese": (
        "de um na no a à se o os da do das dos e uma é que não em para com por mais como mas foi ao ele ela seu "
        "sua ou quando muito já está também pelo pela isso"
    ),
    "dutch": (
        "in was over of de het een van en is dat niet op te zijn voor met aan er maar om hij ook als naar dan nog "
        "bij uit wel kan deze dit werd worden"
    ),
}
_WORD = re.compile(r"[^\W\d_]+")
_BLOCK = re.compile(r"(?:[^\n]+\n?)+")


def _telling() -> dict[str, str]:
    """The language of each small word that a single language has."""
    counted = Counter(word for words in SMALL_WORDS.values() for word in set(words.split()))
    return {word: language for language, words in SMALL_WORDS.items() for word in words.split() if counted[word] == 1}


TELLING = _telling()


def non_english(text: TokenText) -> Mask:
    """Every token of a paragraph that is not in English. Most of its letters are of another script than Latin, or its
    small words (`und`, `les`, `para`, …) are of German, French, Spanish, Italian, Portuguese or Dutch. Of these there
    are two at least and more than English ones. Elsewhere words of two letters or more in another script. Code and JSON
    do not vote, and a paragraph without small words is taken for English."""
    spans = [*_other_script(text.text), *(span for span, _ in foreign_paragraphs(text))]
    found = text.some(spans)
    return found & text.touching(text.contents) if text.conversation else found


def foreign_paragraphs(text: TokenText) -> Iterator[tuple[Span, str]]:
    """Paragraphs that are not in English, and their language (`OTHER_SCRIPT` for all that use other letters)."""
    silent = text.characters((*code_spans(text.text), *json_spans(text.text)))
    for start, end in text.contents if text.conversation else ((0, len(text.text)),):
        for block in _BLOCK.finditer(text.text, start, end):
            if _mostly_other_script(block[0]):
                yield block.span(), OTHER_SCRIPT
                continue
            votes: Counter[str] = Counter()
            for word in _WORD.finditer(text.text, *block.span()):
                language = TELLING.get(word[0].lower())
                if language is not None and not silent[word.start()]:
                    votes[language] += 1
            if not votes:
                continue
            english = votes.pop(ENGLISH, 0)
            best = max(votes, key=lambda language: votes[language], default=ENGLISH)
            if votes[best] >= FEWEST_WORDS and votes[best] > english:
                yield block.span(), best


def _other_script(text: str) -> Iterator[Span]:
    for word in _WORD.finditer(text):
        if len(word[0]) > 1 and any(not _latin(letter) for letter in word[0]):
            yield word.span()


def _mostly_other_script(block: str) -> bool:
    letters = [letter for letter in block if letter.isalpha()]
    return 2 * sum(not _latin(letter) for letter in letters) > len(letters)


def _latin(letter: str) -> bool:
    """Basic Latin to Latin Extended-B, and Latin Extended Additional, where Vietnamese is."""
    return ord(letter) < 0x250 or 0x1E00 <= ord(letter) < 0x1F00
