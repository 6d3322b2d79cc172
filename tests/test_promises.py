"""Each promise of docs/DELIVERY.md is quoted by the doc comment of a test."""

import ast
import re

from stack import REPOSITORY


def promises():
    text = (REPOSITORY / "docs/DELIVERY.md").read_text()
    return re.findall(r"^### (.+)$", text, re.MULTILINE)


def one_line(text):
    return " ".join(text.split())


def python_docs():
    """The docstrings of test functions."""
    for path in (REPOSITORY / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield one_line(ast.get_docstring(node) or "")


def rust_docs():
    """The doc comments that stand right before a test's attributes."""
    comment = re.compile(r"((?:^[ \t]*///.*\n)+)(?:[ \t]*#\[.*\n)*?[ \t]*#\[(?:tokio::)?test", re.MULTILINE)
    for path in REPOSITORY.glob("[!.]*/**/*.rs"):
        if "target" not in path.relative_to(REPOSITORY).parts:
            for match in comment.finditer(path.read_text()):
                yield one_line(re.sub(r"^\s*///", "", match[1], flags=re.MULTILINE))


def test_each_promise_is_quoted_by_a_test():
    """No promise without a test that names it."""
    found = promises()
    assert len(found) >= 14
    docs = [*python_docs(), *rust_docs()]
    unquoted = [promise for promise in found if not any(promise in doc for doc in docs)]
    assert not unquoted, unquoted
