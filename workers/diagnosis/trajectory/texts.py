"""Generated texts on disk, one file a prompt, so that a lost attempt loses no text that was finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from app.files import write_atomically
from workers.decoding.model import Continuation


@dataclass(frozen=True)
class Texts:
    """The texts of one model by one decoder. They belong to one plan; those of another plan are removed."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, plan: str) -> Texts:
        """The folder of this plan; leftovers of another one go."""
        marker = folder / "plan"
        if not marker.is_file() or marker.read_text() != plan:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_atomically(marker, plan.encode())
        return cls(folder)

    def found(self, prompts: int) -> dict[int, Continuation]:
        """What is there, by prompt; a damaged file counts as absent."""
        texts = {}
        for prompt in range(prompts):
            try:
                data = json.loads(self._file(prompt).read_text())
                texts[prompt] = Continuation(tuple(int(token) for token in data["tokens"]), bool(data["ended"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return texts

    def keep(self, prompt: int, text: Continuation) -> None:
        """Writes one text."""
        write_atomically(self._file(prompt), json.dumps({"tokens": list(text.tokens), "ended": text.ended}).encode())

    def _file(self, prompt: int) -> Path:
        return self.folder / f"{prompt:06d}.json"
