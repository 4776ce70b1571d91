"""Long documents in pieces: what is held out, learned from and clustered."""

from __future__ import annotations

from collections.abc import Iterator

# A document longer than this is cut before a hash split (see `passages`). Some three pages: longer than the contexts that small
# models are trained on, short enough that a tenth of a single book is several passages from different places in it.
PASSAGE_CHARACTERS = 8 * 1024


def passages(document: str) -> Iterator[str]:
  """Cuts a long document at paragraph breaks into pieces of at most PASSAGE_CHARACTERS; joined, they are the document."""
  start = 0
  while len(document) - start > PASSAGE_CHARACTERS:
    end = start + PASSAGE_CHARACTERS
    # The last paragraph break of the second half; without one the last line, then the last word, then anywhere.
    for mark in ("\n\n", "\n", " "):
      found = document.rfind(mark, start + PASSAGE_CHARACTERS // 2, end)
      if found >= 0:
        end = found + len(mark)
        break
    yield document[start:end]
    start = end
  yield document[start:]
