"""The documented Python lines run as written, from the checkout, in a process of their own."""

import subprocess
import sys
import textwrap

from tests.e2e.conftest import ROOT

SNIPPETS = {
    "memory": """
        from core.memory_manager import get_resource_manager
        manager = get_resource_manager()
        with manager.memory_guard("model_name", required_gb=0.01):
            held = bytearray(1 << 20)
            del held
        stats = manager.get_memory_stats()
        assert stats.host.total_bytes > stats.process.total_bytes > 0
        manager.cleanup_all_devices()
    """,
    "async": """
        import asyncio
        from core.async_manager import run_async_safe, submit_async_task, wait_async_task

        async def some_coroutine():
            await asyncio.sleep(0)
            return 42

        result = run_async_safe(some_coroutine(), timeout=60)
        assert result == 42
        task_id = submit_async_task(some_coroutine(), name="task")
        assert wait_async_task(task_id) == 42

        async def inside_a_running_loop():
            return run_async_safe(some_coroutine(), timeout=60)

        assert asyncio.run(inside_a_running_loop()) == 42
    """,
    "errors": """
        from core.error_handler import safe_execute, error_context

        @safe_execute(fallback_result="default")
        def risky_function():
            raise ValueError("no")

        assert risky_function() == "default"
        with error_context("loading"):
            pass
    """,
    "models": """
        from config.model_config import (ModelConfig, ModelType, DataType, DeviceType, QuantizationConfig,
                                         InferenceParams, ModelConfigManager)
        config = ModelConfig(name="qwen2.5-7b", model_path="Qwen/Qwen2.5-7B-Instruct", model_type=ModelType.TRANSFORMERS)
        assert config.validate()
        new_model = ModelConfig(name="custom-model", model_path="your/model/path", model_type=ModelType.TRANSFORMERS,
            device=DeviceType.AUTO, dtype=DataType.FLOAT16, quantization=QuantizationConfig(load_in_4bit=True),
            description="Custom model for specific task")
        manager = ModelConfigManager()
        manager.add_config("custom-model", new_model); manager.save_to_file("config/models.json")
        params = InferenceParams(temperature=0.1, top_p=0.3, top_k=10)
        assert (params.temperature, params.top_p, params.top_k) == (0.1, 0.3, 10)
        assert "custom-model" in open("config/models.json", encoding="utf-8").read()
    """,
    "optimizer": """
        import asyncio
        from core.improved_optimizer import SafeOptimizer

        async def evaluator(model, dataset, params):
            return 1 - abs((params.temperature if params.temperature is not None else 1.0) - 0.3)

        async def main(model="m", dataset=[{"question": str(i), "answer": str(i)} for i in range(10)]):
            optimizer = SafeOptimizer()
            result = await optimizer.optimize_parameters(model, dataset, evaluator)
            return result

        result = asyncio.run(main())
        assert abs(result.best_params.temperature - 0.3) < 0.25, result
        assert result.best_score > result.baseline_score
        assert result.verdict.kind.value == "better"
        assert result.held_out
    """,
    "evaluator object": """
        import asyncio
        from core.improved_optimizer import SafeOptimizer

        class Evaluator:
            async def evaluate(self, model, dataset, params):
                if params.top_k == 5:
                    raise RuntimeError("this one fails, the search goes on")
                return {"score": 0.5}

        result = asyncio.run(SafeOptimizer(trials=6, method="random").optimize_parameters("m", [{"q": 1}], Evaluator()))
        assert result.verdict.kind.value in {"tie", "undecided"}, result
        assert not result.held_out
    """,
}


def run(cli, source):
    script = cli.folder / "snippet.py"
    (cli.folder / "config").mkdir(exist_ok=True)
    script.write_text(textwrap.dedent(source), encoding="utf-8")
    environment = cli.environment({"PYTHONPATH": str(ROOT)})
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=cli.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_documented_lines_run_as_written(cli):
    failed = {name: ran.stderr for name, source in SNIPPETS.items() if (ran := run(cli, source)).returncode != 0}
    assert failed == {}
