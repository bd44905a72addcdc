"""A guardrail policy, compiled once into what runs on each text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from gateway.guardrails.base import Check, Guardrail, Match
from gateway.guardrails.window import Window
from registry import plugins
from registry.entities import GuardrailPolicy

Stage = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class Screened:
    """A text that may pass."""

    text: str
    """With what had to be redacted replaced, for example by `[EMAIL]`."""
    findings: tuple[Match, ...]
    """By position in the original text; also those that were only to be reported."""


@dataclass(frozen=True, slots=True)
class TextScreen:
    """The checks of one stage. Thread-safe."""

    checks: tuple[Check, ...]
    stage: Stage

    @property
    def reach(self) -> int:
        """Code points that a stream through `window` holds back."""
        return max(check.guardrail.reach for check in self.checks)

    def apply(self, text: str) -> Screened:
        """
        *text* as it may pass, and what was found.

        Overlapping redactions become one, named after the longest of them.

        Raises:
            GuardrailBlocked: a rule whose action is `block` has a finding. The message names the
                rule, never the text.
        """
        window = self.window()
        screened = window.push(text) + window.finish()
        return Screened(screened, window.matches)

    def window(self) -> Window:
        """A new stream through these checks, with the same outcome as `apply` on its whole text."""
        return Window(self.checks, self.stage)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a policy does at each stage; None where it does nothing."""

    input: TextScreen | None
    output: TextScreen | None


def compile_policy(policy: GuardrailPolicy) -> Compiled:
    """
    The screens of *policy*: its detectors loaded, their options checked, their patterns compiled.

    Raises:
        NotFound: a detector that is not in `sluicegate.guardrails`.
        BadInput: an option that the detector does not have, or a wrong value of one.
    """
    stages: dict[Stage, list[Check]] = {"input": [], "output": []}
    for rule in policy.rules:
        build = plugins.load("guardrails", rule.detector)
        guardrail = cast("Guardrail", build(rule.options))  # type: ignore[operator]
        stages[rule.stage].append(Check(rule.detector, rule.action, guardrail))
    return Compiled(_screen(stages["input"], "input"), _screen(stages["output"], "output"))


@cache
def all_detectors() -> TextScreen:
    """Every detector that is installed, with its defaults, for reports alone. Made once for the process."""
    rules = [
        Check(name, "observe", cast("Guardrail", plugins.load("guardrails", name)({})))  # type: ignore[operator]
        for name in plugins.names("guardrails")
    ]
    return TextScreen(tuple(rules), "input")


def _screen(checks: list[Check], stage: Stage) -> TextScreen | None:
    return TextScreen(tuple(checks), stage) if checks else None
