"""The names of the files and folders in a token store (see store.py), besides its token files."""

from __future__ import annotations

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
TIMES = "times.json"
FILE_TABLE = "files.csv"  # See file_table.py.
DOCUMENT_TABLE = "documents.parquet"  # See document_table.py.
CLUSTERS = "clusters"  # What its domains were found by (clustering.clusters).
PAGE = "domains.html"  # A page that describes its domains (report.domains).
PARTS = (MANIFEST, TOKENIZER, TIMES, FILE_TABLE, DOCUMENT_TABLE, CLUSTERS, PAGE)
