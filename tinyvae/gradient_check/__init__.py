"""The gradient checker: is every backward pass the derivative of its forward pass?
It knows ops, layers and models from outside; nothing in them knows of it."""

from .check import gradcheck, gradcheck_fn
from .differences import Plan
from .report import Failure, Report

__all__ = ["Failure", "Plan", "Report", "gradcheck", "gradcheck_fn"]
