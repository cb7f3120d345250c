"""Services of experiment tracking, one file each; see `retina.training.loggers.logger`."""

from typing import Annotated

from retina.configuration import OneOf
from retina.training.loggers.logger import Logger, LoggerConfig
from retina.training.loggers.mlflow_logger import MlflowConfig
from retina.training.loggers.wandb_logger import WandbConfig

AnyLoggerConfig = Annotated[LoggerConfig, OneOf(WandbConfig, MlflowConfig)]

__all__ = ["AnyLoggerConfig", "Logger", "LoggerConfig", "MlflowConfig", "WandbConfig"]
