"""
DeepEval's GEval with its own client and `evaluate`: `python -m tests.bench.evals.peers.deepeval_run`.

Exact match and one judge call a row: the evaluation steps are given. Only the judging is timed: the answers
are given.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings

from tests.bench.evals.peers.work import Work, asked, measure


def judge(work: Work) -> int:
    """How many rows failed."""
    from deepeval.evaluate import evaluate
    from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
    from deepeval.metrics import ExactMatchMetric, GEval
    from deepeval.models import LocalModel
    from deepeval.test_case import LLMTestCase, SingleTurnParams

    model = LocalModel(model="judge", base_url=work.url, api_key="none", temperature=0)
    shown = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT, SingleTurnParams.EXPECTED_OUTPUT]
    rubric = GEval(name="right", evaluation_params=shown, evaluation_steps=["Compare."], model=model)
    cases = [
        LLMTestCase(input=f"question {i}", actual_output=f"answer {i}", expected_output=f"answer {i}")
        for i in range(work.rows)
    ]
    found = evaluate(
        cases,
        [ExactMatchMetric(), rubric],
        async_config=AsyncConfig(run_async=True, max_concurrent=work.concurrency),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False, use_cache=False),
        error_config=ErrorConfig(ignore_errors=True),
    )
    scored = [row for row in found.test_results if all(m.score is not None for m in row.metrics_data or [])]
    return work.rows - len(scored)


def main() -> None:
    """Run and print."""
    for key in ("DEEPEVAL_TELEMETRY_OPT_OUT", "DEEPEVAL_DISABLE_DOTENV"):
        os.environ.setdefault(key, "1")
    os.environ.setdefault("DEEPEVAL_FILE_SYSTEM", "READ_ONLY")
    warnings.simplefilter("ignore")
    work = asked("DeepEval GEval and exact match with its own runner")

    def quietly() -> int:
        with contextlib.redirect_stdout(sys.stderr):
            return judge(work)

    with contextlib.redirect_stdout(sys.stderr):
        import deepeval.metrics  # noqa: F401 - not part of what is timed
    measure(work, quietly)


if __name__ == "__main__":
    main()
