"""Caffe's ``.prototxt`` files: the text format of protocol buffers, without a schema.

Reference
---------
Protocol Buffers, "Text Format Language Specification". Read are messages, lists, texts, numbers and
names; extensions and the type URLs of ``Any`` are not, which no such file has.
"""

from __future__ import annotations

import re
from typing import Any

from thresher.golden.errors import ThresherError

__all__ = ["Message", "parse"]

Message = dict[str, list[Any]]

_TOKEN = re.compile(
    r"""(?P<space>[\s,;]+|\#[^\n]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fF]?)(?![\w.]))
    |(?P<name>[-+]?[A-Za-z_][\w.]*)
    |(?P<mark>[:{}<>\[\]])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_DEPTH = 50  # messages within messages


def parse(text: str) -> Message:
    """Return the fields of a message: each name's values, in their order.

    A value is an ``int``, a ``float``, a ``str`` (a text or a name), a ``bool`` or a message.

    Raises
    ------
    ThresherError
        If the text is malformed; the message has the line.

    Examples
    --------
    >>> parse('name: "net"  input_dim: [1, 3]  layer { pool: MAX  ratio: 0.5 }  # an end')
    {'name': ['net'], 'input_dim': [1, 3], 'layer': [{'pool': ['MAX'], 'ratio': [0.5]}]}
    """
    return _Parser(text).message("")


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        place, line = 0, 1
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise ThresherError(f"line {line}: {text[place]!r} begins no word of this format")
            if match.lastgroup != "space":
                self.tokens.append((match.lastgroup, match[0], line))
            line += match[0].count("\n")
            place = match.end()
        self.tokens.append(("end", "", line))
        self.next = self.depth = 0

    def message(self, closing: str) -> Message:
        fields: Message = {}
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.error(f"there are more than {_DEPTH} messages within one another")
        while True:
            kind, word, _ = self.peek()
            if (closing and word == closing and kind == "mark") or (not closing and kind == "end"):
                self.next += 1
                self.depth -= 1
                return fields
            if kind != "name":
                raise self.error(f"a field's name was expected, not {word or 'the end'!r}")
            self.next += 1
            colon = self.took(":")
            values = fields.setdefault(word, [])
            if colon and self.took("["):
                while not self.took("]"):
                    values.append(self.value())
            elif colon or self.peek()[1] in _CLOSING:
                values.append(self.value())
            else:
                raise self.error(f"a colon was expected after {word}, not {self.peek()[1]!r}")

    def value(self) -> Any:
        kind, word, _ = self.peek()
        self.next += 1
        match kind:
            case "mark" if word in _CLOSING:
                return self.message(_CLOSING[word])
            case "text":
                text = word[1:-1]
                while self.peek()[0] == "text":  # texts beside one another are one
                    text += self.peek()[1][1:-1]
                    self.next += 1
                return re.sub(r"\\(.)", r"\1", text)
            case "number":
                digits = word.lower()
                if "x" in digits:
                    return int(digits, 16)
                whole = re.fullmatch(r"[-+]?\d+", digits)
                return int(digits) if whole else float(digits.rstrip("f"))
            case "name":
                return {"true": True, "false": False}.get(word, word)
        self.next -= 1
        raise self.error(f"a value was expected, not {word or 'the end'!r}")

    def took(self, mark: str) -> bool:
        found = self.peek()[:2] == ("mark", mark)
        self.next += found
        return found

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.next]

    def error(self, what: str) -> ThresherError:
        return ThresherError(f"line {self.peek()[2]}: {what}")
