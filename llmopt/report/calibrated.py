"""What ``calibrate`` found, as the terminal shows it: 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.messages import t
from llmopt.report.measured import percent
from llmopt.report.terminal import folded

__all__ = ["calibration_text"]


def calibration_text(result: Mapping[str, Any]) -> str:
    """The floor, what it resolves, what it takes to find the margin, and how exact our own client is."""
    noise = result["noise"]
    heading = t(
        "measure.calibrated",
        model=result["model"],
        engine=result["engine"],
        launches=len(result["launches"]),
        pairs=noise["pairs"],
        requests=noise["requests"],
        load=noise["load"],
    )
    low, high = map(percent, noise["interval"])
    spread = t("measure.calibrated_spread", spread=percent(noise["spread"]), low=low, high=high, pairs=noise["pairs"])
    lines = ["", heading, "", spread]
    lines += [
        t("measure.calibrated_resolves", pairs=pairs, difference=percent(difference))
        for pairs, difference in result["resolves"].items()
    ]
    if result["pairs_for_margin"]:
        lines.append(t("measure.calibrated_margin", margin=percent(result["margin"]), pairs=result["pairs_for_margin"]))
    lines += [
        t(
            "measure.calibrated_client",
            streams=client["streams"],
            middle=f"{client['ttft_error_p50_ms']:.2f}",
            worst=f"{client['ttft_error_p99_ms']:.2f}",
        )
        for client in result["clients"]
    ]
    lines += [t("benchmark.warning", count=count, text=t(key)) for key, count in result["warnings"].items()]
    return "\n".join(folded([*lines, t("measure.calibrated_kept", path=result["path"])]))
