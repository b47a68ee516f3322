"""The rows of one database in another, whichever engines they are of: `dao.copy`."""

from dao.transfer.copying import copy
from dao.transfer.values import Copied, CopiedTable, Moved, RefusedRow, Report

__all__ = ["Copied", "CopiedTable", "Moved", "RefusedRow", "Report", "copy"]
