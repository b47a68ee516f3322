"""Rehearses migrations: runs what is pending on a copy of the database, through the real runner, and tells what it did."""

from __future__ import annotations

from dao.migrate.rehearsal.findings import Failure, Gone, Rehearsal, Rehearsed, RoundTrip, RowChange
from dao.migrate.rehearsal.rehearser import rehearse
from dao.migrate.verification.round_trip import TripFailure

__all__ = [
    "Failure",
    "Gone",
    "Rehearsal",
    "Rehearsed",
    "RoundTrip",
    "RowChange",
    "TripFailure",
    "rehearse",
]
