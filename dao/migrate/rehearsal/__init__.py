"""Rehearses migrations: runs what is pending on a copy of the database, through the real runner, and tells what it did."""

from __future__ import annotations

from dao.migrate.rehearsal.findings import (
    Copying,
    Failure,
    Gone,
    Rehearsal,
    Rehearsed,
    RoundTrip,
    RowChange,
    TripFailure,
)
from dao.migrate.rehearsal.rehearser import rehearse

__all__ = [
    "Copying",
    "Failure",
    "Gone",
    "Rehearsal",
    "Rehearsed",
    "RoundTrip",
    "RowChange",
    "TripFailure",
    "rehearse",
]
