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


def test_a_package_that_is_absent_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch):
    module, _ = LOGGERS["mlflow"]
    monkeypatch.setattr(module, "MODULE", "mlflow_that_nobody_has")
    config = load_config(None, overrides=["logging.loggers=[mlflow]"]).config
    with pytest.raises(ConfigError, match=r"pip install 'dinov2\[mlflow\]'"):
        check_installed(config)


def test_every_logger_of_the_rules_is_there():
    config = load_config(None, overrides=[f"logging.loggers=[{','.join(LOGGERS)}]"]).config
    assert config.logging.loggers == tuple(LOGGERS)
