"""The gradient checker: is every backward pass the derivative of its forward pass, and does it mean what it says?"""

from .check import gradcheck, gradcheck_fn
from .differences import Plan
from .report import Failure, Report
from .table import Table, check_all, main_table

__all__ = ["Failure", "Plan", "Report", "Table", "check_all", "gradcheck", "gradcheck_fn", "main_table"]
