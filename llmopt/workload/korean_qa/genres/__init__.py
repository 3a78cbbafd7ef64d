"""The kinds of documents, in the order they were written."""

from llmopt.workload.korean_qa.genres import travel, work

__all__ = ["GENRES"]

GENRES = (*work.GENRES, *travel.GENRES)
