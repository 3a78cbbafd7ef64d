"""What is the best way to run this model here? The composition point: the only place that picks implementations."""

from llmopt.study.events import Event, Listener
from llmopt.study.optimize import optimize, resume
from llmopt.study.request import StudyRequest

__all__ = ["Event", "Listener", "StudyRequest", "optimize", "resume"]
