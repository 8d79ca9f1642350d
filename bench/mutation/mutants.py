"""Mutants of a module: each small change of its source that a test should notice, found in its syntax tree."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
}
LEFT_OUT = ("__repr__", "__str__")  # methods that only word something
WORDING = ("warn", "TypeVar", "ParamSpec", "cast", "overload")  # calls whose arguments are texts or types
UNSEEN = ("strict", "non_blocking")  # arguments that guard an invariant as `assert` does, or are speed on a GPU


@dataclass(frozen=True)
class Mutant:
    """One change of a module's source.

    Args:
        module: path of the module, from the root.
        line: number of the line that changes, from 1.
        statement: first and last line of the statement around it.
        start: first character that is replaced.
        end: character after the last that is replaced.
        new: text in its place, on as many lines.
        name: changed line before and after, which stays the same while other lines move.
        inside: True in the body of a function, False for what importing the module runs.
    """

    module: str
    line: int
    statement: tuple[int, int]
    start: int
    end: int
    new: str
    name: str
    inside: bool

    def change(self, source: str) -> str:
        """Make the mutated source."""
        return source[: self.start] + self.new + source[self.end :]


def list_mutants(module: str, source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines.

    Left out are docstrings, annotations, `assert` and `zip(strict=)`, ``non_blocking=``, `raise` and the texts of
    warnings, f-strings, ``__all__``, ``__repr__``, what only type checkers run, and functions that are not run by
    Python (``@triton.jit``).

    >>> [mutant.name for mutant in list_mutants("one.py", "def f(x):\\n    return x < 3")]
    ['return x < 3 => return None', 'return x < 3 => return x <= 3', 'return x < 3 => return x < 4']
    """
    return _Finder(module, source).mutants


def draw_mutants(mutants: list[Mutant], most: int, seed: int) -> list[Mutant]:
    """Random sample of ``most`` mutants (0: all of them), in the order of their lines.

    Each is drawn by its own name, so that the sample stays when other lines of a module change.
    """
    drawn = sorted(mutants, key=lambda one: hashlib.sha256(f"{seed} {one.module} {one.name}".encode()).digest())
    chosen = set(drawn[:most]) if most else set(mutants)
    return [one for one in mutants if one in chosen]


class _Finder(ast.NodeVisitor):
    """Visitor that gathers the mutants of a module."""

    def __init__(self, module: str, source: str) -> None:
        if not source.isascii():  # the syntax tree counts bytes
            raise ValueError(f"{module} must be ASCII")
        self.module, self.source, self.mutants, self.depth = module, source, list[Mutant](), 0
        self.statement = (1, 1)
        self.begins = [0, *(i + 1 for i, letter in enumerate(source) if letter == "\n")]
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        """Visit a node, and remember the statement that it is or lies in."""
        outer = self.statement
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            self.statement = (node.lineno, max(node.lineno, last or 0))
        super().visit(node)
        self.statement = outer

    def place(self, node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        """First character of a node, and the one after its last."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.begins[node.lineno - 1] + node.col_offset, self.begins[node.end_lineno - 1] + node.end_col_offset

    def add(self, start: int, end: int, new: str) -> None:
        """Note a mutant, which must compile and leave the numbers of lines as they are."""
        new += "\\\n" * (self.source.count("\n", start, end) - new.count("\n"))
        line = self.source.count("\n", 0, start)
        begin, stop = self.begins[line], self.source.find("\n", end)
        old_line = self.source[begin : stop if stop >= 0 else None]
        new_line = self.source[begin:start] + new + self.source[end : stop if stop >= 0 else None]
        name = " => ".join(" ".join(text.replace("\\\n", "").split()) for text in (old_line, new_line))
        count = sum(one.name.split(" #")[0] == name for one in self.mutants)
        name += f" #{count + 1}" if count else ""
        mutant = Mutant(self.module, line + 1, self.statement, start, end, new, name, self.depth > 0)
        try:
            ast.parse(mutant.change(self.source))
        except (SyntaxError, ValueError):
            return
        self.mutants.append(mutant)

    def swap(self, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Replace the operator between two operands."""
        start, end = self.place(left)[1], self.place(right)[0]
        at = self.source.find(old, start, end)
        if at >= 0:
            self.add(at, at + len(old), new)

    # What is left out.

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    def visit_Raise(self, node: ast.Raise) -> None: ...

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [ast.unparse(one) for one in node.decorator_list]
        if node.name in LEFT_OUT or any("jit" in one or "overload" in one for one in decorators):
            return
        for default in [*node.args.defaults, *node.args.kw_defaults, *node.decorator_list]:
            if default is not None:
                self.visit(default)
        self.depth += 1
        for statement in node.body:
            self.visit(statement)
        self.depth -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.depth += 1
        self.visit(node.body)
        self.depth -= 1

    # What is changed.

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):  # a docstring
            return
        if isinstance(node.value, ast.Call):
            if ast.unparse(node.value.func).split(".")[-1] in WORDING:
                return
            self.add(*self.place(node), "pass")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self.add(*self.place(node.value), "None")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self.add(*self.place(node), "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add(*self.place(node), "break")

    def visit_If(self, node: ast.If | ast.IfExp | ast.While) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if not isinstance(node.test, ast.Compare | ast.UnaryOp | ast.BoolOp | ast.Constant):
            start, end = self.place(node.test)
            self.add(start, end, f"not ({self.source[start:end]})")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(node)

    def visit_While(self, node: ast.While) -> None:
        self.visit_If(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right, operation in zip(operands, operands[1:], node.ops, strict=False):
            self.swap(left, right, *COMPARISONS[type(operation)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.swap(left, right, old, new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC:
            self.swap(node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            self.swap(node.target, node.value, f"{old}=", f"{new}=")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, operand = self.place(node)[0], self.place(node.operand)[0]
        if isinstance(node.op, ast.Not | ast.Invert):
            self.add(start, operand, "")
        elif isinstance(node.op, ast.USub):
            self.add(start, operand, "+")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).split(".")[-1] in WORDING:
            return
        places = sorted([*map(self.place, node.args), *map(self.place, node.keywords)])
        for keyword in node.keywords:
            place = self.place(keyword)
            i = places.index(place)
            if keyword.arg is not None and keyword.arg not in UNSEEN:
                self.add(places[i - 1][1] if i else place[0], place[1], "")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in UNSEEN:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        for new in _change_constant(node.value):
            self.add(*self.place(node), new)


def _change_constant(value: object) -> Iterator[str]:
    """Other values of a constant's type, as source."""
    if isinstance(value, bool):
        yield str(not value)
    elif isinstance(value, int | float):
        yield repr(value + 1)
    elif isinstance(value, str):
        yield repr(f"XX{value}XX")
    elif isinstance(value, bytes):
        yield repr(b"XX" + value + b"XX")
