"""TF-IDF and a truncated SVD, as c-BTM (Gururangan et al. 2023, arXiv 2303.14177) takes them: all numbers are one word.

scikit-learn, which takes a second to import, is imported where it is used: most experiments find no domains.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Sequence

import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_json

_NUMBER = re.compile(r"\b\d\w*")
_TERMS, _ARRAYS = "terms.json", "tfidf.npz"


def _plain(text: str) -> str:
  """The text in lower case, with the same word in the place of every one that begins with a digit."""
  return _NUMBER.sub("00", text.lower())


class TfidfMap:
  """Texts -> vectors of length 1 (0 for a text without a known word).

  Args:
    terms: the V words, sorted.
    idf: their inverse document frequencies, float32 [V].
    components: the right singular vectors, float32 [F, V].
  """

  def __init__(self, terms: Sequence[str], idf: np.ndarray, components: np.ndarray):
    self.terms, self.components = list(terms), components
    self._vectorizer = _vectorizer(vocabulary={term: i for i, term in enumerate(terms)})
    self._vectorizer.idf_ = idf

  def apply(self, documents: Sequence[str]) -> np.ndarray:
    from sklearn.preprocessing import normalize

    return normalize(self._vectorizer.transform(documents) @ self.components.T).astype(np.float32)

  def top_terms(self, centroid_F: np.ndarray, count: int) -> list[str]:
    """The words that tell a centroid best, in order."""
    return [self.terms[i] for i in np.argsort(-(centroid_F @ self.components), kind="stable")[:count]]

  def save(self, folder: pathlib.Path) -> None:
    write_json(folder / _TERMS, self.terms)
    np.savez(folder / _ARRAYS, idf=self._vectorizer.idf_.astype(np.float32), components=self.components)


@dataclasses.dataclass(frozen=True)
class Tfidf:
  """Fits such maps.

  Attributes:
    dimensions: F at most.
    terms: V at most: those that are most frequent.
  """

  dimensions: int = 128
  terms: int = 32_768

  def fit(self, documents: Sequence[str], seed: int) -> TfidfMap:
    from sklearn.utils.extmath import randomized_svd

    vectorizer = _vectorizer(max_features=self.terms)
    try:
      x_NxV = vectorizer.fit_transform(documents)
    except ValueError:  # An empty vocabulary.
      raise InputError(f"Clustering.features = 'tfidf': no words in the {len(documents)} passages of the sample; give vectors of "
                       "your own, as Clustering.features = 'FILE.npy'") from None
    _, _, components = randomized_svd(x_NxV, min(self.dimensions, *x_NxV.shape), n_iter=4, random_state=seed)
    return TfidfMap(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_, components.astype(np.float32))

  def load(self, folder: pathlib.Path) -> TfidfMap:
    try:
      with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        return TfidfMap(read_json(folder / _TERMS), arrays["idf"], arrays["components"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      raise InputError(f"{folder}: not the feature map that was saved ({error}); fit the clusters again") from None


def _vectorizer(**settings):
  from sklearn.feature_extraction.text import TfidfVectorizer

  return TfidfVectorizer(preprocessor=_plain, token_pattern=r"\w\w+", sublinear_tf=True, dtype=np.float32, **settings)
