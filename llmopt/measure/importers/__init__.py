"""Results of other tools (vLLM's bench serve, GuideLLM, AIPerf) in our words, for comparison in one table.

A figure is taken over only under the name whose formula it follows here: their "ITL" may be our TPOT. What a tool
measures differently is said with it.
"""

from llmopt.measure.importers.form import ImportedRun
from llmopt.measure.importers.reading import import_results

__all__ = ["ImportedRun", "import_results"]
