"""As much of RFC 9651 (structured fields) as dash.js's reports need, written from the RFC for these tests
alone."""

import re

KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
NUMBER = re.compile(r"-?\d+(\.\d{1,3})?")
STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
BOOLEAN = re.compile(r"\?([01])")


class Reader:
    """Reads a report from left to right."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def take(self, pattern):
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def skip(self, character):
        found = self.text.startswith(character, self.at)
        self.at += found
        return found

    def dictionary(self):
        """A report as the object that is to land."""
        members = {}
        while self.at < len(self.text):
            key = self.key()
            members[key] = self.member() if self.skip("=") else self.with_parameters(True)
            assert self.skip(",") or self.at == len(self.text), f"no comma at {self.at} of {self.text}"
        return members

    def key(self):
        return self.take(KEY)[0]

    def member(self):
        return self.with_parameters(self.inner_list() if self.skip("(") else self.bare_item())

    def inner_list(self):
        items = []
        while not self.skip(")"):
            items.append(self.with_parameters(self.bare_item()))
            self.skip(" ")
        return items

    def with_parameters(self, value):
        parameters = {}
        while self.skip(";"):
            key = self.key()
            parameters[key] = self.bare_item() if self.skip("=") else True
        return {"value": value, "params": parameters} if parameters else value

    def bare_item(self):
        if number := self.take(NUMBER):
            return float(number[0]) if number[1] else int(number[0])
        if string := self.take(STRING):
            return re.sub(r"\\(.)", r"\1", string[1])
        if token := self.take(TOKEN):
            return token[0]
        return self.take(BOOLEAN)[1] == "1"
