"""What ``sage llm serve`` is about to start: models found, ports chosen, daemons described. Starts nothing itself."""

from sage.cli.stack.models import find_embedding_model, find_llm_model
from sage.cli.stack.plan import StackPlan, StackRequest, make_plan

__all__ = ["StackPlan", "StackRequest", "find_embedding_model", "find_llm_model", "make_plan"]
