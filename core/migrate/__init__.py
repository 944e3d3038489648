"""`engine plugins migrate`: a model file written for vLLM or Aphrodite, rewritten to the SDK, and what a person must still do.

symbols.py   which name of theirs is which of ours, and what there is no counterpart of
rewrite.py   the rewriting itself, by libcst: everything else in the file stays as it was, comments and all
report.py    what was done and what is left, with the files that a plugin needs besides
"""

from __future__ import annotations

from .report import Migration, migrate

__all__ = ["Migration", "migrate"]
