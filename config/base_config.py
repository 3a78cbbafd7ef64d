"""Base settings and their validation."""

from llmopt.config.settings import SPECS, SettingSpec, SettingsView, load_settings, save_settings

__all__ = ["SPECS", "SettingSpec", "SettingsView", "load_settings", "save_settings"]
