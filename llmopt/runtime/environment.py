"""The environment an engine gets: what it needs from ours by name, the plan's additions, and telemetry switched off."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

__all__ = ["TELEMETRY_OFF", "child_environment"]

SYSTEM = """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP TERM LD_LIBRARY_PATH DYLD_LIBRARY_PATH
    XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR
    SYSTEMROOT WINDIR COMSPEC PATHEXT APPDATA LOCALAPPDATA PROGRAMDATA USERPROFILE NUMBER_OF_PROCESSORS
"""
NETWORK = """
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
"""
DEVICES = "TOKENIZERS_PARALLELISM GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK MALLOC_ARENA_MAX"
NAMES = frozenset(f"{SYSTEM} {NETWORK} {DEVICES}".split())
PREFIXES = (
    *("LC_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "HSA_", "ROCM_", "RCCL_", "ONEAPI_", "SYCL_", "GGML_", "VK_"),
    *("HF_", "TRANSFORMERS_", "PYTORCH_", "TORCH", "TRITON_", "VLLM_", "SGLANG_", "SGL_", "FLASHINFER_"),
    *("DOCKER_", "CONTAINER_", "CONTAINERS_", "BUILDAH_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_"),
)
SECRET = re.compile(r"TOKEN(?!IZERS)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
"""Never handed on: an environment is readable by every process of the user. Keys go by file or standard input."""

TELEMETRY_OFF: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""What keeps engines and their libraries from reporting their use to their makers."""

OURS = {
    "PYTHONSAFEPATH": "1",  # else a child started in a checkout would import our config/ and core/
    "PYTHONUNBUFFERED": "1",  # else the log would be silent while the engine works, and look like a stall
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    **TELEMETRY_OFF,
}


def child_environment(additions: Mapping[str, str], source: Mapping[str, str] | None = None) -> dict[str, str]:
    """The allow-listed part of ``source`` (our own environment) with our switches and then ``additions`` on top."""
    inherited = {name: value for name, value in (os.environ if source is None else source).items() if _passes(name)}
    return {**inherited, **OURS, **additions}


def _passes(name: str) -> bool:
    return (name in NAMES or name.startswith(PREFIXES)) and not SECRET.search(name)
