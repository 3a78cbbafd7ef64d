"""Values of ``.env`` reach the engine's process, and Ctrl-C leaves nothing of it."""

import signal

import psutil
import pytest

VALUES = {
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "HF_HOME": "/nowhere/hub",
    "OMP_NUM_THREADS": "3",
}


def engines(cli):
    """Environments of the living engines of this run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word.endswith(("fake_engine.py", "llamacpp_server.py")) for word in process.info["cmdline"] or []):
            try:
                environment = process.environ()
            except psutil.Error:
                continue
            if environment.get("XDG_RUNTIME_DIR") == str(cli.runtime):
                found.append(environment)
    return found


@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
def test_dotenv_values_reach_the_engine(cli, wait_for, engine, request):
    if engine == "llamacpp":
        request.getfixturevalue("demo_model")
    lines = "".join(f"{name}={value}\n" for name, value in VALUES.items())
    (cli.folder / ".env").write_text(lines, encoding="utf-8")
    model = ("--engine", engine, "--model", "smollm2-135m", "--samples", "2", "--max-tokens", "4", "--repeats", "100")
    process = cli.start("benchmark", *model, "--dataset", "korean_math_easy", "--name", "b")
    seen = []
    wait_for(lambda: process.poll() is not None or seen.extend(engines(cli)) or seen)
    assert seen, process.communicate()
    assert {name: seen[0].get(name) for name in VALUES} == VALUES
    samples = cli.folder / "optimization_results" / "b" / "samples"
    wait_for(lambda: process.poll() is not None or (samples.is_dir() and any(samples.iterdir())))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    cli.wait_until_clean()
