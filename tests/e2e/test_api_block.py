"""The documented Python block runs exactly as written."""

from tests.e2e.test_api import run

# The block of the documentation, line for line; what it leaves open (a coroutine, a model, data, an evaluator) is given.
BLOCK = """
from core.memory_manager import get_resource_manager
manager = get_resource_manager()
with manager.memory_guard("model_name", required_gb=8.0):
    ...                                   # everything taken inside is released and the release is verified
manager.get_memory_stats(); manager.cleanup_all_devices()

from core.async_manager import run_async_safe, submit_async_task
result = run_async_safe(some_coroutine(), timeout=60)       # from any thread, inside or outside a running loop
task_id = submit_async_task(some_coroutine(), name="task")

from core.error_handler import safe_execute, error_context
@safe_execute(fallback_result="default")
def risky_function(): ...

from config.model_config import (ModelConfig, ModelType, DataType, DeviceType, QuantizationConfig,
                                 InferenceParams, ModelConfigManager)
config = ModelConfig(name="qwen2.5-7b", model_path="Qwen/Qwen2.5-7B-Instruct", model_type=ModelType.TRANSFORMERS)
assert config.validate()
new_model = ModelConfig(name="custom-model", model_path="your/model/path", model_type=ModelType.TRANSFORMERS,
    device=DeviceType.AUTO, dtype=DataType.FLOAT16, quantization=QuantizationConfig(load_in_4bit=True),
    description="Custom model for specific task")
manager = ModelConfigManager()
manager.add_config("custom-model", new_model); manager.save_to_file("config/models.json")
InferenceParams(temperature=0.1, top_p=0.3, top_k=10)

from core.improved_optimizer import SafeOptimizer
optimizer = SafeOptimizer()
result = await optimizer.optimize_parameters(model, dataset, evaluator)   # evaluator: async (model, dataset, params) -> score
"""
AROUND = """
import ast, asyncio, sys, types

async def some_coroutine():
    return 42

async def evaluator(model, dataset, params):
    return 1 - abs((params.temperature if params.temperature is not None else 1.0) - 0.3)

names = {{"some_coroutine": some_coroutine, "evaluator": evaluator, "model": "m",
         "dataset": [{{"question": str(i), "answer": str(i)}} for i in range(10)]}}
code = compile({block!r}, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
running = types.FunctionType(code, names)()
asyncio.run(running)
assert names["result"].best_score > names["result"].baseline_score
assert names["risky_function"]() is None
"""
NEEDED_BYTES = 8.5e9


def test_the_documented_block_runs_exactly_as_written(cli):
    from llmopt.hardware.stats import get_memory_stats

    enough = get_memory_stats().host.available_bytes > NEEDED_BYTES
    block = BLOCK if enough else BLOCK.replace("required_gb=8.0", "required_gb=0.01")  # less RAM is refused, rightly
    ran = run(cli, AROUND.format(block=block))
    assert ran.returncode == 0, ran.stderr
