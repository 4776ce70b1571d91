"""Texts of a few letters, whose tokens are counted by hand."""

import json

TRAIN = ["abc", "héllo", "abc"]
VALID = ["valid one", "valid two"]


def write(path, texts):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
