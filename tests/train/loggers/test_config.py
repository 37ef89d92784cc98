"""The `logging` section: what cannot be is said before anything starts."""

import pytest

from dinov2.config.load import load_config
from dinov2.errors import ConfigError
from dinov2.train.loggers import check_installed
from dinov2.train.loggers.loggers import LOGGERS


def test_a_logger_that_does_not_exist_names_those_that_do():
    with pytest.raises(ConfigError, match=r"no tensorbord\. Take of \['tensorboard', 'wandb', 'mlflow'\]"):
        load_config(None, overrides=["logging.loggers=[tensorbord]"])


def test_a_logger_stands_there_once_and_has_a_project():
    with pytest.raises(ConfigError, match="mlflow stands there more than once") as caught:
        load_config(None, overrides=["logging.loggers=[mlflow,mlflow]", "logging.project=' '"])
    assert "logging.project is empty" in str(caught.value)


def test_packages_that_are_absent_are_named_together_with_the_command_that_brings_them(
    monkeypatch: pytest.MonkeyPatch,
):
    config = load_config(None, overrides=["logging.loggers=[wandb,mlflow]"]).config
    monkeypatch.setattr(LOGGERS["mlflow"][0], "MODULE", "mlflow_that_nobody_has")
    with pytest.raises(
        ConfigError, match=r"mlflow_that_nobody_has is not .* pip install 'dinov2\[mlflow\]', or leave mlf"
    ):
        check_installed(config)
    monkeypatch.setattr(LOGGERS["wandb"][0], "MODULE", "wandb_that_nobody_has")
    with pytest.raises(ConfigError, match=r"pip install 'dinov2\[wandb,mlflow\]', or leave wandb and mlflow out"):
        check_installed(config)


def test_every_logger_of_the_rules_is_there():
    config = load_config(None, overrides=[f"logging.loggers=[{','.join(LOGGERS)}]"]).config
    assert config.logging.loggers == tuple(LOGGERS)
