"""
Jinja for templates that nobody reviewed: neither Python, nor files, nor time, nor memory are within reach.

What Jinja's own sandbox leaves open is work: loops in loops, strings that double, filters that pad to any
width. Here every template is rewritten before it is compiled, so that each iteration, output, call, operation
and filter is paid for from a budget that a render starts with. Filters and methods are those of a list; each
costs what it reads and writes.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Sized,
    ValuesView,
)
from contextvars import ContextVar
from json import JSONEncoder
from types import BuiltinMethodType, MethodType
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateError, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.loaders import DictLoader
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.tests import TESTS
from jinja2.utils import Namespace, _PassArg
from jinja2.visitor import NodeTransformer

MAX_TEMPLATE = 200_000
"""Characters of one template."""
MAX_NODES = 20_000
"""Parts of one template, as its parser counts them."""
MAX_OUTPUT = 4_000_000
"""Characters that a render may produce."""
BUDGET = 1_000_000
"""Steps of a render. One is an iteration, call, operation or output, or 16 characters read or written."""
_CHARACTERS_A_STEP = 16
_MAX_BITS = 4096
_MAX_WIDTH = 10_000
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset((
        "capitalize", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "islower",
        "isspace", "isupper", "join", "lower", "lstrip", "removeprefix", "removesuffix", "replace",
        "rfind", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    )),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
}  # fmt: skip
_FILTERS = (
    "abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map",
    "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr",
    "slice", "sort", "string", "sum", "title", "tojson", "trim", "truncate", "unique", "upper",
    "wordcount", "wordwrap",
)  # fmt: skip
_WIDE = frozenset(("batch", "center", "indent", "round", "slice", "truncate", "wordwrap"))
"""Filters whose whole numbers are sizes."""
_OPERATORS = frozenset(("+", "-", "*", "/", "//", "%", "**"))


class Refused(TemplateError):
    """A template does, or asks for, what none may. The message names no value."""


class Budget:
    """What a render may still do. Not thread-safe: each render has its own."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        """Begin with all of `BUDGET`."""
        self.left = BUDGET

    def charge(self, steps: int) -> None:
        """Take *steps*. Raises Refused when there are not so many left."""
        self.left -= steps
        if self.left < 0:
            raise Refused(f"takes more than {BUDGET} steps; loop over less, or say it shorter")

    def weigh(self, value: object) -> None:
        """Take what it costs to read *value* once. Raises Refused as `charge`."""
        if isinstance(value, str):
            self.charge(1 + len(value) // _CHARACTERS_A_STEP)
        elif isinstance(value, _CONTAINERS):
            self._weigh_all(value)
        else:
            self.charge(_lone(value))

    def _weigh_all(self, value: object) -> None:
        # What contains a thing twice costs it twice, so stop as soon as it is known to be too much.
        waiting: list[object] = [value]
        most, cost = self.left, 0
        while waiting:
            item = waiting.pop()
            cost += 1
            if isinstance(item, str):
                cost += len(item) // _CHARACTERS_A_STEP
            elif isinstance(item, dict):
                waiting += item
                waiting += item.values()
            elif isinstance(item, _CONTAINERS):
                waiting += item
            else:
                cost += _lone(item) - 1
            if cost + len(waiting) > most:
                cost += len(waiting)
                break
        self.charge(cost)


_CONTAINERS = (dict, list, tuple, set, frozenset)


def _lone(value: object) -> int:
    if isinstance(value, int):
        return 1 + value.bit_length() // 512
    return 1 + len(value) if isinstance(value, range | KeysView | ValuesView | ItemsView) else 1


_BUDGET: ContextVar[Budget] = ContextVar("sluicegate_template_budget")


def run(template: Any, values: Mapping[str, Any]) -> str:  # noqa: ANN401 - jinja2.Template is no exported type
    """
    What *template* renders to with *values*, within the budget of one render. Thread-safe.

    Raises:
        TemplateError, or what Python raises where a template computes nonsense.
        Refused: it costs or produces too much.
    """
    token = _BUDGET.set(Budget())
    try:
        parts: list[str] = []
        size = 0
        for part in template.root_render_func(template.new_context(dict(values))):
            size += len(part)
            if size > MAX_OUTPUT:
                raise Refused(f"produces more than {MAX_OUTPUT} characters")
            parts.append(part)
        return "".join(parts)
    finally:
        _BUDGET.reset(token)


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates pay for what they do, and include only what they are given."""

    intercepted_binops = _OPERATORS

    def __init__(self, partials: Mapping[str, str], names: Mapping[str, str]) -> None:
        """
        Args:
            partials: digest → template text.
            names: what the outermost template calls them → digest.
        """
        super().__init__(
            undefined=StrictUndefined, autoescape=False, trim_blocks=True, optimized=False,
            loader=DictLoader(dict(partials)), auto_reload=False, cache_size=-1,
        )  # fmt: skip
        self.names = names
        self.globals = {"range": safe_range, "dict": dict, "namespace": Namespace}
        self.filters = {name: _metered(name, FILTERS[name]) for name in _FILTERS}
        self.filters |= {"_emit": _emit, "_loop": _loop, "_weigh": _weigh, "_concat": _concat}
        tests = cast("Mapping[str, Callable[..., Any]]", TESTS)
        self.tests = {name: _metered(name, test) for name, test in tests.items() if name != "callable"}

    def join_path(self, template: str, parent: str) -> str:
        """What an included name stands for: in the outermost template a digest of its own choosing."""
        return self.names.get(template, template) if not parent else template

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_TEMPLATE:
            raise Refused(f"is longer than {MAX_TEMPLATE} characters")
        tree = super()._parse(source, name, filename)
        check(tree)
        metered: nodes.Template = _Meter().visit(tree)
        metered.set_environment(self)
        return metered

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """The result of an operation, once it is paid for."""
        budget = _BUDGET.get()
        budget.weigh(left)
        budget.weigh(right)
        if operator == "%" and isinstance(left, str | bytes):
            raise Refused("formats text with %; use {{ … }}")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, Sequence) and isinstance(times, int):
                    budget.charge(max(times, 0) * max(1, len(text) // _CHARACTERS_A_STEP))
                    if not isinstance(text, str):
                        budget.charge(max(times, 0) * len(text))
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * max(right, 1) if operator == "**" else 0
            if operator == "*":
                bits = left.bit_length() + right.bit_length()
            if bits > _MAX_BITS:
                raise Refused(f"computes with numbers of more than {_MAX_BITS} bits")
        result = super().call_binop(context, operator, left, right)
        budget.weigh(result)
        return result

    def call(self, context: Context, called: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """What a call returns: a macro's, a loop's, or one of the methods on the list."""
        budget = _BUDGET.get()
        budget.weigh(args)
        budget.weigh(kwargs)
        if isinstance(called, BuiltinMethodType):
            owner, name = called.__self__, called.__name__
            if name not in _METHODS.get(type(owner), ()):
                raise Refused(f"calls the method {name!r} of {type(owner).__name__}, which prompts may not")
            budget.weigh(owner)
            if name == "join":
                return _join(budget, list(args[0]), str(owner)) if args else called()
            if name == "replace" and len(args) >= 2:
                _check_replace(budget, owner, *args[:2])
        elif not (
            isinstance(called, Macro | LoopContext)
            or called in (safe_range, dict, Namespace)
            or (isinstance(called, MethodType) and isinstance(called.__self__, LoopContext))
        ):
            raise Refused("calls what is neither a macro nor a method that prompts may call")
        result = super().call(context, called, *args, **kwargs)
        budget.weigh(result)
        return result


def check(tree: nodes.Template) -> None:
    """
    Refuse what no prompt needs: inheritance, imports, includes of computed names, too many parts.

    Raises:
        Refused: names the construct.
    """
    for count, node in enumerate(_walk(tree)):
        if count >= MAX_NODES:
            raise Refused(f"has more than {MAX_NODES} parts")
        if isinstance(node, nodes.Extends | nodes.Block | nodes.Import | nodes.FromImport):
            raise Refused(
                f"line {node.lineno}: {type(node).__name__.lower()} is not for prompts; use include"
            )
        if isinstance(node, nodes.Include) and not (
            isinstance(node.template, nodes.Const)
            and isinstance(node.template.value, str)
            and node.with_context
            and not node.ignore_missing
        ):
            raise Refused(f'line {node.lineno}: write {{% include "name" %}}, with a name and nothing else')
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise Refused(
                f"line {node.lineno}: no filter {node.name!r} here; there are {', '.join(_FILTERS)}"
            )


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.iter_child_nodes())


class _Meter(NodeTransformer):
    """Puts the meter into a syntax tree, innermost parts first."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """What *node* is replaced by."""
        self.generic_visit(node, *args, **kwargs)
        rewrite = _REWRITES.get(type(node))
        return rewrite(node) if rewrite is not None else node


def _body(node: Any) -> nodes.Node:  # noqa: ANN401 - a template, a macro or a call block
    node.body = [_toll(node.lineno or 1, _cost(node.body)), *node.body]
    metered: nodes.Node = node
    return metered


def _for(node: nodes.For) -> nodes.Node:
    node.iter = _filter("_loop", node.iter, _cost(node.body))
    return node


def _include(node: nodes.Include) -> list[nodes.Node]:
    return [_toll(node.lineno, 1), node]


def _output(node: nodes.Output) -> nodes.Node:
    node.nodes = [
        _filter("_emit", nodes.Const(part.data) if isinstance(part, nodes.TemplateData) else part)
        for part in node.nodes
    ]
    return node


def _compare(node: nodes.Compare) -> nodes.Node:
    node.expr = _weighed(node.expr)
    for operand in node.ops:
        operand.expr = _weighed(operand.expr)
    return node


def _concatenation(node: nodes.Concat) -> nodes.Node:
    return _filter("_concat", nodes.List(node.nodes, lineno=node.lineno))


def _getitem(node: nodes.Getitem) -> nodes.Node:
    return _filter("_weigh", node) if isinstance(node.arg, nodes.Slice) else node


_REWRITES: Mapping[type, Callable[[Any], nodes.Node | list[nodes.Node]]] = {
    nodes.CallBlock: _body,
    nodes.Compare: _compare,
    nodes.Concat: _concatenation,
    nodes.For: _for,
    nodes.Getitem: _getitem,
    nodes.Include: _include,
    nodes.Macro: _body,
    nodes.Output: _output,
    nodes.Template: _body,
}


def _cost(body: Iterable[nodes.Node]) -> int:
    return 1 + sum(1 for node in body for _ in _walk(node)) // 12


def _toll(lineno: int, cost: int) -> nodes.Output:
    return nodes.Output([_filter("_emit", nodes.Const(""), cost)], lineno=lineno)


def _filter(name: str, node: nodes.Node, *arguments: int) -> nodes.Filter:
    lineno = node.lineno or 1
    given: list[nodes.Node] = [nodes.Const(argument, lineno=lineno) for argument in arguments]
    return nodes.Filter(node, name, given, [], None, None, lineno=lineno)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter("_weigh", node)


def _text(budget: Budget, value: object) -> str:
    if isinstance(value, str):
        budget.charge(1 + len(value) // _CHARACTERS_A_STEP)
        return value
    budget.weigh(value)
    return str(value)


@pass_context
def _emit(_context: Context, value: object, cost: int = 0) -> str:
    budget = _BUDGET.get()
    if cost:
        budget.charge(cost)
    return _text(budget, value)


@pass_context
def _weigh(_context: Context, value: object) -> object:
    _BUDGET.get().weigh(value)
    return value


@pass_context
def _concat(_context: Context, values: list[object]) -> str:
    budget = _BUDGET.get()
    return "".join([_text(budget, value) for value in values])


@pass_context
def _loop(_context: Context, values: Iterable[object], cost: int) -> Iterator[object]:
    budget = _BUDGET.get()
    for value in values:
        budget.charge(cost)
        yield value


def _join(budget: Budget, values: list[object], between: str = "") -> str:
    budget.charge(len(values) * (1 + len(between) // _CHARACTERS_A_STEP))
    return between.join([_text(budget, value) for value in values])


def _check_replace(budget: Budget, text: object, old: object, new: object) -> None:
    text, old, new = str(text), str(old), str(new)
    budget.charge(text.count(old) * (1 + len(new) // _CHARACTERS_A_STEP))


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, a filter or test, for what it reads and what it returns."""
    passed = _PassArg.from_obj(function)
    special = name in _WIDE or name in ("join", "replace", "sum", "tojson")

    @pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        budget = _BUDGET.get()
        budget.weigh(value)
        if args or kwargs:
            budget.weigh(args)
            budget.weigh(kwargs)
        if special:
            _check_arguments(budget, name, value, args, kwargs)
        if passed is None:
            result = function(value, *args, **kwargs)
        elif passed is _PassArg.environment:
            result = function(context.environment, value, *args, **kwargs)
        elif passed is _PassArg.context:
            result = function(context, value, *args, **kwargs)
        else:
            result = function(context.eval_ctx, value, *args, **kwargs)
        if isinstance(result, Iterator):
            result = list(_counted(budget, result))
        elif result is not True and result is not False:
            budget.weigh(result)
        return result

    return metered


def _counted(budget: Budget, values: Iterator[object]) -> Iterator[object]:
    for value in values:
        budget.weigh(value)
        yield value


def _check_arguments(
    budget: Budget, name: str, value: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Pay for what a filter is about to write where that does not follow from what it reads."""
    if name == "tojson" and (args or kwargs):
        for chunk in JSONEncoder(indent=_size(name, (*args, *kwargs.values()), 8)).iterencode(value):
            budget.charge(1 + len(chunk) // _CHARACTERS_A_STEP)
    elif name in _WIDE:
        given = (*args, *kwargs.values())
        largest = _size(name, given, 30 if name == "round" else _MAX_WIDTH)
        texts = sum(len(text) for text in given if isinstance(text, str))
        lines = str(value).count("\n") + 1 if name == "indent" else 1
        if name == "wordwrap" and isinstance(value, str):
            lines, largest = len(value), 0
        budget.charge(lines * (largest + texts) // _CHARACTERS_A_STEP)
    elif name == "join":
        between = args[0] if args else kwargs.get("d", "")
        times = len(value) if isinstance(value, Sized) and not isinstance(value, Undefined) else 0
        budget.charge(times * (1 + len(str(between)) // _CHARACTERS_A_STEP))
    elif name == "replace" and len(args) >= 2:
        _check_replace(budget, value, *args[:2])
    elif name == "sum" and (len(args) > 1 or "start" in kwargs):
        raise Refused("filter 'sum' takes an attribute, no start")


def _size(name: str, given: tuple[Any, ...], most: int) -> int:
    """The largest whole number among the arguments of a filter, which is at most *most*."""
    size = max((abs(number) for number in given if isinstance(number, int)), default=4)
    if size > most:
        raise Refused(f"filter {name!r}: no size beyond {most}")
    return size
