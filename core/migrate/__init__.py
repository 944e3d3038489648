"""`engine plugins migrate`: a model file written for vLLM or Aphrodite, rewritten to the SDK, and what a person must still do.

symbols.py   which name of theirs is which of ours, and what there is no counterpart of
rewrite.py   the rewriting itself, by libcst: everything else in the file stays as it was, comments and all
block_list.py  a list of blocks, in the place of a call that makes it      left.py   what is left that nothing here gives or has
report.py    what was done and what is left, with the files that a plugin needs besides
notes.py     what a person is told                                         trees.py  what several of them ask of libcst
"""

from __future__ import annotations

from .report import Migration, migrate

__all__ = ["Migration", "migrate"]
