"""Where the scored positions of a corpus stand, in the order in which its windows are scored."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from workers.distributions.token_values import Positions
from workers.text.windows import Corpus

UNKNOWN = -1


def positions_of(corpus: Corpus) -> Positions:
    """One entry for each scored position, window by window, as the `TokenValues` of the whole corpus are ordered."""
    columns: dict[str, list[NDArray[np.int32]]] = {
        name: [] for name in ("document", "window", "position", "context", "token_id", "domain")
    }
    domains = np.unique([document.domain for document in corpus.documents], return_inverse=True)[1]
    # Without a BOS the first token of a window is predicted by nothing, so position i is the window's token i + 1.
    first = 0 if corpus.bos else 1
    for number, window in enumerate(corpus.windows):
        scored = np.flatnonzero(window.scored).astype(np.int32)
        columns["document"].append(np.full(scored.size, window.document, dtype=np.int32))
        columns["window"].append(np.full(scored.size, number, dtype=np.int32))
        columns["position"].append(window.start + first + scored)
        columns["context"].append(scored + 1)
        columns["token_id"].append(window.tokens[scored + 1])
        columns["domain"].append(np.full(scored.size, domains[window.document], dtype=np.int32))
    empty = np.zeros(0, dtype=np.int32)
    return Positions(**{name: np.concatenate([empty, *parts]) for name, parts in columns.items()})


def document_tokens(corpus: Corpus, documents: Collection[int]) -> dict[int, NDArray[np.int32]]:
    """The tokens of some documents, by document index; `UNKNOWN` where no window holds the token."""
    wanted = set(documents)
    tokens = {document: np.full(corpus.documents[document].tokens, UNKNOWN, dtype=np.int32) for document in wanted}
    for window in corpus.windows:
        if window.document in wanted:
            text = window.tokens[1:] if corpus.bos else window.tokens
            tokens[window.document][window.start : window.start + len(text)] = text
    return tokens
