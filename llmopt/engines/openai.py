"""Any endpoint that speaks the OpenAI API and runs already: nothing to launch, request settings only.

Where it is comes from ``OPENAI_BASE_URL`` (``https://host/v1``, ``http://127.0.0.1:11434/v1`` for Ollama,
``unix:///path.sock``), unless the model's path is such an address itself; the key from ``OPENAI_API_KEY``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmopt.engines.base import COMMON_REQUEST_SETTINGS, RunFolder
from llmopt.engines.sizing import require
from llmopt.errors import SettingsError
from llmopt.records import (
    Endpoint,
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    Strategy,
    Task,
)

__all__ = ["OpenAI", "endpoint_of"]

URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
SCHEMES = ("http", "https", "unix")
READY_CAP_S = 60.0


class OpenAI:
    """An endpoint that somebody else runs. Address and key are read when the object is made."""

    name = "openai"
    transport = "remote"
    needs_weights = False
    metric_names: Mapping[str, str] = {}
    default_sampling = InferenceParams(temperature=1.0, top_p=1.0)
    request_settings = COMMON_REQUEST_SETTINGS

    def __init__(self, *, url: str | None = None, api_key: str | None = None) -> None:
        self._url = url or os.environ.get(URL_VARIABLE)
        self._key = api_key or os.environ.get(KEY_VARIABLE)

    def installation(self) -> Installation:
        """Usable where an address is known."""
        if self._url is None:
            return Installation(engine=self.name, available=False, why_not="engines.openai_no_address")
        return Installation(engine=self.name, available=True, build="remote")

    def supports(self, model: ModelInfo) -> str | None:
        """Every model: whether the endpoint has it shows when it is asked. SettingsError for an unreadable address."""
        if (url := self._address(model)) is not None:
            endpoint_of(url, model=model.name)
        return None

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:  # noqa: ARG002
        """None: nothing is launched."""
        return ()

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:  # noqa: ARG002
        """No launch settings."""
        return {}

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:  # noqa: ARG002
        """No launch settings."""
        return {}

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:  # noqa: ARG002
        """Nothing can conflict."""
        return None

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """Where to connect; raises SettingsError where no address is known or it cannot be read."""
        require(settings, ())
        url = self._address(model)
        if url is None:
            raise SettingsError("engines.openai_no_address")
        name = model.name if url == model.path else run.endpoint.model or model.name
        endpoint = endpoint_of(url, model=name, api_key=self._key)
        return LaunchPlan(
            engine=self.name,
            argv=(),
            env={},
            endpoint=endpoint,
            command=(),
            settings={},
            health_path=f"{endpoint.base_path}/models",
            ready_cap_s=READY_CAP_S,
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's signature
        """Nothing that every endpoint would take."""
        return {}

    def remembers(self, settings: Settings) -> bool:  # noqa: ARG002 - the Protocol's signature
        """It may, but we cannot start it afresh, so the question has no use here."""
        return False

    def _address(self, model: ModelInfo) -> str | None:
        """That of the model itself, where it is one, else the one that was given."""
        return model.path if urlsplit(model.path).scheme in SCHEMES else self._url


def endpoint_of(url: str, *, model: str, api_key: str | None = None) -> Endpoint:
    """The endpoint at a base address; raises SettingsError for what is no such address.

    A key inside the address is refused: addresses are shown and logged.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix" and parts.path:
        return Endpoint(model=model, socket_path=parts.path, api_key=api_key)
    try:
        port = parts.port
    except ValueError:
        raise SettingsError("engines.openai_bad_address", url=_shown(url)) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise SettingsError("engines.openai_bad_address", url=_shown(url))
    tls = parts.scheme == "https"
    return Endpoint(
        model=model,
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        base_path=parts.path.rstrip("/") or "/v1",
        api_key=api_key,
    )


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    before, at, after = url.partition("@")
    scheme = before.partition("://")[0]
    return f"{scheme}://***@{after}" if at else url.partition("?")[0]
