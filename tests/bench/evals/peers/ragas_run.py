"""
RAGAS' Faithfulness with its own client: two calls a row, `python -m tests.bench.evals.peers.ragas_run`.

RAGAS has no bounded runner for its current metrics (`abatch_score` starts everything at once), so a semaphore
bounds them. Only the judging is timed: the answers are given.
"""

from __future__ import annotations

import asyncio
import os
import warnings

from tests.bench.evals.peers.work import Work, asked, measure


async def judge(work: Work) -> int:
    """How many rows failed."""
    import instructor
    from openai import AsyncOpenAI
    from ragas.llms.base import InstructorLLM
    from ragas.metrics.collections import Faithfulness

    room = asyncio.Semaphore(work.concurrency)
    async with AsyncOpenAI(base_url=work.url, api_key="none", max_retries=2) as client:
        # As llm_factory makes it, but with the schema in response_format: the mock answers by that.
        patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
        model = InstructorLLM(client=patched, model="judge", provider="openai")
        metric = Faithfulness(llm=model)

        async def one(i: int) -> bool:
            async with room:
                found = await metric.ascore(
                    user_input=f"question {i}", response=f"answer {i}", retrieved_contexts=[f"answer {i}"]
                )
                return not 0 <= found.value <= 1

        results = await asyncio.gather(*map(one, range(work.rows)), return_exceptions=True)
    return sum(result is not False for result in results)


def main() -> None:
    """Run and print."""
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    warnings.simplefilter("ignore")
    work = asked("RAGAS faithfulness with its own client")
    import ragas.metrics.collections  # noqa: F401 - not part of what is timed

    measure(work, lambda: asyncio.run(judge(work)))


if __name__ == "__main__":
    main()
