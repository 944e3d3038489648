"""One text from the texts of a clip's pieces, as it comes."""

from __future__ import annotations

import unicodedata

_WITHOUT_SPACES = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HALFWIDTH KATAKANA", "FULLWIDTH", "THAI",
                   "LAO", "KHMER", "MYANMAR", "TIBETAN")  # fmt: skip
"""How Unicode's names of the letters begin that are written without spaces between words."""


class TextJoiner:
    """Joins texts, and says of each addition what it adds: these additions end to end are the text.

    The text has no white space at either end. Where two pieces of the clip meet there is one space, unless the script is
    written without.
    """

    def __init__(self) -> None:
        self.text = ""
        self._space = ""
        self._at_seam = False

    def next_piece(self) -> None:
        """What is added from now on comes from the next piece of the clip."""
        self._at_seam = True

    def add(self, text: str) -> str:
        """Put more text behind; returns what the whole text grows by."""
        body = text.strip()
        if not body:
            self._space += text
            return ""
        leading, trailing = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        between = self._space + leading
        if not self.text:
            between = ""
        elif self._at_seam:
            between = " " if between or needs_space(self.text[-1], body[0]) else ""
        self._space, self._at_seam = trailing, False
        self.text += between + body
        return between + body


def needs_space(left: str, right: str) -> bool:
    """Whether two texts that end and begin with these characters are set apart."""
    return not any(unicodedata.name(character, "").startswith(_WITHOUT_SPACES) for character in (left, right))
