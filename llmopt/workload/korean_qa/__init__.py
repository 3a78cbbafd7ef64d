"""``korean_qa``: questions about invented documents, so that nothing can have been learnt by heart."""

from llmopt.workload.korean_qa.generator import SET_VERSION, generate, template_ids

__all__ = ["SET_VERSION", "generate", "template_ids"]
